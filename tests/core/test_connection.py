"""A rollout server whose answers make no sense: an attempt that failed, until the engine's patience is over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2o_core.config import ServerEngineConfig
from p2o_core.engines.base import LogprobRequest, PolicyNotFinite, RolloutRequest, Sampling
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.server import ServerEngine
from tests.loopback import Reply, Request, served
from tests.policies import GENERATION, set_fields

JUNK = [{}, {"logprobs": None}, {"logprobs": {"top_logprobs": []}}, {"logprobs": {"top_logprobs": [{"\ufffd": -1.0}]}}]


def without_swaps(request: Request) -> Reply | None:
    """A server that was started for adapters is well, and reads no full weights; None: to what else it is asked."""
    return {"/health": Reply(200), "/collective_rpc": Reply(404)}.get(request.path)


@pytest.mark.parametrize("body", [b"{}", b'{"results": ["policy-of-yesterday"]}', b"junk", b"[]"])
def test_junk_for_a_swap(base_folder: Path, body: bytes) -> None:
    with served(lambda request: Reply(200, body)) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,), patience_s=0.5))
        with pytest.raises(EngineUnavailable, match="weights not read"):
            engine.generate([RolloutRequest("p", "q", "", (0,), 0)], Sampling(1.0, 4))


@pytest.mark.parametrize("choice", JUNK)
def test_junk_for_log_probs(base_folder: Path, choice: dict[str, object]) -> None:
    def answer(request: Request) -> Reply:
        return without_swaps(request) or Reply(200, json.dumps({"choices": [choice]}).encode())

    with served(answer) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,), patience_s=0.5))
        with pytest.raises(EngineUnavailable, match=r"junk: .* in the log-probs"):
            engine.generate([RolloutRequest("p", "q", "", (0,), 0)], Sampling(1.0, 4))


def test_a_policy_of_nan_is_the_policy_s_fault(base_folder: Path) -> None:
    """vLLM 0.32 answers 400 so when a log-prob is NaN: no server would do better, so nothing is tried again."""
    said = {"message": "Out of range float values are not JSON compliant", "type": "BadRequestError", "code": 400}
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return without_swaps(request) or Reply(400, json.dumps({"error": said}).encode())

    with served(answer) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,)))
        with pytest.raises(PolicyNotFinite) as raised:
            engine.generate([RolloutRequest("p", "q", "", (0,), 0)], Sampling(1.0, 4))
    assert [completion.problem_id for completion in raised.value.completions] == ["p"]
    assert [request.path for request in asked] == ["/health", "/collective_rpc", "/v1/completions"]


@pytest.mark.parametrize("row", [0, 3, 5])
def test_the_row_without_numbers_is_named(base_folder: Path, row: int) -> None:
    """Not the first of the batch: its text is what a person looks at."""
    requests = [RolloutRequest(name, f"{name}?", "", (0, 1), 7) for name in ("first", "second", "third")]
    rows = [(request, sample) for request in requests for sample in request.samples]
    broken = rows[row][0].seed(rows[row][1])

    def answer(request: Request) -> Reply:
        if known := without_swaps(request):
            return known
        asked = json.loads(request.body)
        if asked["seed"] == broken and not asked["logprobs"]:
            return Reply(400, b'{"message": "Out of range float values are not JSON compliant"}')
        logprobs = {"token_logprobs": [-0.5], "top_logprobs": [{"a": -0.1, "b": -0.1}]}
        choice = {"token_ids": [9], "logprobs": logprobs, "finish_reason": "stop"}
        return Reply(200, json.dumps({"choices": [choice]}).encode())

    with served(answer) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,)))
        with pytest.raises(PolicyNotFinite) as raised:
            engine.generate(requests, Sampling(1.0, 4))
    assert [(c.problem_id, c.sample) for c in raised.value.completions] == [(rows[row][0].problem_id, rows[row][1])]


def test_servers_are_told_every_end(base_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_folder, tmp_path / "policy"))
    set_fields(GENERATION, eos_token_id=[3, 7, 9])(folder)
    bodies: list[dict] = []

    def answer(request: Request) -> Reply:
        if known := without_swaps(request):
            return known
        bodies.append(json.loads(request.body))
        logprobs = {"token_logprobs": [-0.5, -0.5], "top_logprobs": [{"a": -0.1, "b": -0.1}]}
        choice = {"token_ids": [12, 9], "logprobs": logprobs, "finish_reason": "stop"}
        return Reply(200, json.dumps({"choices": [choice]}).encode())

    with served(answer) as url:
        engine = ServerEngine(folder, folder, ServerEngineConfig(urls=(url,)))
        (completion,) = engine.generate([RolloutRequest("p", "q", "", (0,), 0)], Sampling(1.0, 4))
    assert {tuple(body["stop_token_ids"]) for body in bodies} == {(3, 7, 9)}
    assert completion.token_ids == (12, 9)
    assert not completion.truncated
    assert completion.text == engine.chat.tokenizer.decode([12]), "9 ends it here, though it is a word"


SCORED = [LogprobRequest("p", "q", "", (7, 9)), LogprobRequest("other", "r", "z", (5,))]
PROBED = {"logprobs": {"top_logprobs": [{"a": -0.1, "b": -0.1}]}}
STEPS = {7: {"7": {"logprob": -0.5}}, 9: {"9": {"logprob": -1.5}}, 5: {"5": {"logprob": -2.5}}}


def score(base_folder: Path, prompt_logprobs: Callable[[list[int]], object]) -> list[tuple[float, ...]]:
    """``prompt_logprobs`` of the prompt that is asked for."""

    def answer(request: Request) -> Reply:
        if known := without_swaps(request):
            return known
        asked = json.loads(request.body)
        assert (asked["max_tokens"], asked["prompt_logprobs"]) == (1, 0)
        return Reply(
            200, json.dumps({"choices": [PROBED | {"prompt_logprobs": prompt_logprobs(asked["prompt"])}]}).encode()
        )

    with served(answer) as url:
        engine = ServerEngine(base_folder, base_folder, ServerEngineConfig(urls=(url,), retries=1, patience_s=0.5))
        return engine.completion_logps(SCORED)


def test_the_end_of_the_prompt_is_what_was_scored(base_folder: Path) -> None:
    other = {"0": {"logprob": 9.0}}
    scored = score(base_folder, lambda prompt: [None, *(STEPS.get(token, other) for token in prompt[1:])])
    assert scored == [(-0.5, -1.5), (-2.5,)]


@pytest.mark.parametrize("junk", [None, [], [None, None], [{"8": {"logprob": -1.0}}] * 30, "text", [{"7": None}] * 30])
def test_junk_for_a_prompt_s_log_probs(base_folder: Path, junk: object) -> None:
    with pytest.raises(EngineUnavailable, match=r"junk: .* in the prompt's log-probs"):
        score(base_folder, lambda prompt: junk)


def test_a_completion_that_scores_nan_is_the_policy_s_fault(base_folder: Path) -> None:
    """Python's own JSON has a word for it, and vLLM's 400 is another way of saying it."""
    with pytest.raises(PolicyNotFinite, match="other"):
        score(base_folder, lambda prompt: [STEPS[7], {"9": {"logprob": -1.5}, "5": {"logprob": float("nan")}}])
