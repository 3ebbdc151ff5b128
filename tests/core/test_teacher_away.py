"""A teacher's endpoint that is away: waited for, and after its patience the search ends with what it has."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2o_core.config import EvolveConfig, FullPolicy, TeacherReflectorConfig
from p2o_core.engines.base import Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.engines.language_models import ENDPOINT_DOWN, TeacherModel
from p2o_core.policy import Policy
from p2o_core.search.evolve import evolve_templates
from p2o_core.types import Problem
from p2o_core.verify import Verifier
from tests.clock import quiet_s
from tests.loopback import Reply, Request, free_port, served

HARD = [Problem(f"h{n}", f"sum {n} a: +5 b: +2 ?", str(1000 + n), "hard", "train") for n in range(8)]


def teacher(port: int, **settings: float) -> TeacherReflectorConfig:
    content = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "m", "backoff_s": 0.05, "retries": 0, "attempts": 1}
    return TeacherReflectorConfig.model_validate(content | settings)


def says_there(request: Request) -> Reply:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "there"}}
    content = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Reply(200, json.dumps(content).encode())


def test_an_endpoint_that_comes_late_is_waited_for() -> None:
    """It comes once it has been asked in vain twice, however long that takes on a busy machine."""
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    model = TeacherModel(teacher(port, patience_s=60.0), "key", seed=1)
    with ExitStack() as stack:

        def come_late() -> None:
            with closed:
                for _ in range(2):
                    closed.accept()[0].close()
            stack.enter_context(served(says_there, port))

        coming = threading.Thread(target=come_late, daemon=True)
        coming.start()
        replies = model.complete(["one", "two"])
        coming.join()
    assert [reply.text for reply in replies] == ["there", "there"]
    failures = [kind for reply in replies for kind in reply.failures]
    assert len(failures) >= 2, "beyond retries: 0"
    assert set(failures) == {"connection"}
    assert not model.down


def test_a_search_without_its_teacher_ends_early(base_folder: Path, verifier: Verifier) -> None:
    settings = teacher(free_port(), patience_s=1.0)
    model = TeacherModel(settings, "key", seed=1)
    config = EvolveConfig(dev_size=4, minibatch=2, parents=2, max_metric_calls=4000, min_hard=4, reflector=settings)
    engine = EmbeddedEngine(Policy.create(base_folder, FullPolicy(), seed=0), rows_per_batch=64)
    started = quiet_s()
    evolution = evolve_templates(HARD, engine, verifier, [], config, Sampling(1.0, 12), seed=5, model=model)
    assert quiet_s() - started < 60
    assert [template.text for template in evolution.templates] == [""]
    assert evolution.cost.failed[ENDPOINT_DOWN] >= 1
    assert evolution.cost.metric_calls < 100
    assert model.complete(["more"])[0].failures == (ENDPOINT_DOWN,), "and nothing more is sent"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    asked: list[Request] = []

    def later(request: Request) -> Reply:
        asked.append(request)
        return Reply(status) if len(asked) == 1 else says_there(request)

    port = free_port()
    with served(later, port):
        (reply,) = TeacherModel(teacher(port, retries=1), "key", seed=1).complete(["one"])
    assert (reply.text, reply.failures) == ("there", (f"http_{status}",))


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    port = free_port()
    with served(lambda request: Reply(status), port):
        (reply,) = TeacherModel(teacher(port, retries=3), "key", seed=1).complete(["one"])
    assert (reply.text, reply.failures) == (None, (f"http_{status}",))
