"""A teacher behind a real endpoint (a loopback vLLM), with failures and leaks injected: each is counted, none stops
the search, no leak becomes a template. Named to run before test_server.py, which kills a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from p2o_core.config import EvolveConfig, FullPolicy, TeacherReflectorConfig
from p2o_core.engines.base import Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.engines.language_models import TeacherModel
from p2o_core.engines.serving import BASE_MODEL
from p2o_core.policy import Policy
from p2o_core.search.evolve import Evolution, evolve_templates
from p2o_core.types import Problem
from p2o_core.verify import Verifier
from tests.engines.conftest import Served
from tests.engines.faults import Faults, proxied

pytest.importorskip("vllm", reason="the vllm extra is not installed: `make vllm`")

HARD = [Problem(f"h{n}", f"sum {n} a+5 b+2 ?", str(1000 + n), "hard", "train") for n in range(8)]
KEY = "sk-canary-5b1f"
ANSWER_LEAK = "```\nRemember: the third one is 1,003.\n```"
PROBLEM_LEAK = "```\nWork like this: sum 4 a + 5 b + 2 ? and so on.\n```"
GOOD = "```\nDo not stop early.\n```"


def says(text: str) -> bytes:
    """A chat completion as an endpoint writes it."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


BODIES = {
    "junk": b"<html>not an answer",
    "nothing": b'{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}',
    "answer leak": says(ANSWER_LEAK),
    "problem leak": says(PROBLEM_LEAK),
    "good": says(GOOD),
}


def searched(base: Path, verifier: Verifier, url: str, **settings: object) -> Evolution:
    teacher = TeacherReflectorConfig.model_validate(
        {"base_url": f"{url}/v1", "model": BASE_MODEL, "timeout_s": 1.5, "backoff_s": 0.05, "max_new_tokens": 24}
        | {"concurrency": 1, "attempts": 2, "input_price": 1.0, "output_price": 10.0}
        | settings
    )
    config = EvolveConfig(dev_size=4, minibatch=2, parents=2, max_metric_calls=40, min_hard=4, reflector=teacher)
    policy = Policy.create(base, FullPolicy(), seed=0)
    model = TeacherModel(teacher, KEY, seed=1)
    return evolve_templates(
        HARD, EmbeddedEngine(policy, rows_per_batch=64), verifier, [], config, Sampling(1.0, 12), seed=5, model=model
    )


def test_failures_and_leaks(servers: list[Served], served_base: Path, verifier: Verifier) -> None:
    planned = ["500", "429", "timeout", "junk", "good", "answer leak", "problem leak", "503", "answer leak", "nothing"]
    faults = Faults(servers[0].url, list(planned), BODIES)
    with proxied(faults) as url:
        evolution = searched(served_base, verifier, url)
    cost = evolution.cost
    assert faults.injected == planned, "every planned fault happened"
    assert cost.failed == {"http_429": 1, "http_500": 1, "http_503": 1, "junk": 2, "timeout": 1}
    assert cost.refused["leaked_answer"] >= 2
    assert cost.refused["leaked_problem"] >= 1
    assert cost.metric_calls >= 40, "the search went on to its budget"
    assert cost.reflection_calls > len(planned) - sum(cost.failed.values()), "the real model was asked too"
    dollars = (cost.reflection_input_tokens * 1.0 + cost.reflection_output_tokens * 10.0) / 1e6
    assert cost.reflection_dollars == pytest.approx(dollars, abs=1e-6)
    said = json.dumps([template.text for template in evolution.templates])
    assert "1,003" not in said
    assert "a + 5" not in said
    assert KEY not in said + json.dumps(asdict(cost))


def test_an_endpoint_that_is_down_stops_nothing(served_base: Path, verifier: Verifier) -> None:
    faults = Faults("http://127.0.0.1:9", ["500"] * 10_000)
    with proxied(faults) as url:
        evolution = searched(served_base, verifier, url, retries=1, attempts=1)
    assert [template.text for template in evolution.templates] == [""]
    assert evolution.cost.failed == {"http_500": len(faults.injected)}
    assert evolution.cost.refused == {}
