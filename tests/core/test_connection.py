"""A rollout server whose answers make no sense: an attempt that failed, until the engine's patience is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2o_core.config import ServerEngineConfig
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.server import ServerEngine
from tests.loopback import Reply, Request, served

JUNK = [{}, {"logprobs": None}, {"logprobs": {"top_logprobs": []}}, {"logprobs": {"top_logprobs": [{"\ufffd": -1.0}]}}]


@pytest.mark.parametrize("choice", JUNK)
def test_junk_for_log_probs(base_folder: Path, choice: dict[str, object]) -> None:
    def answer(request: Request) -> Reply:
        return Reply(200, json.dumps({"choices": [choice]}).encode())

    with served(answer) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,), patience_s=0.5))
        with pytest.raises(EngineUnavailable, match=r"junk: .* in the log-probs"):
            engine.generate([RolloutRequest("p", "q", "", (0,), 0)], Sampling(1.0, 4))
