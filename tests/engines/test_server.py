"""The ``server`` engine against real ``vllm serve`` processes on loopback, one of which is killed mid-batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from p2o_core.batch import Batch
from p2o_core.config import FullPolicy, ServerEngineConfig
from p2o_core.engines.base import LogprobRequest, RolloutRequest, Sampling
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.engines.server import ServerEngine
from p2o_core.engines.serving import BASE_MODEL
from p2o_core.policy import Policy
from p2o_core.types import Completion
from p2o_core.witness import OtherPolicyServed
from tests.clock import quiet_s
from tests.engines.conftest import LORA, Served, moved_adapter, running, with_witness
from tests.engines.faults import Faults, proxied
from tests.loopback import free_port

pytest.importorskip("vllm", reason="the vllm extra is not installed: `make vllm`")

SAMPLING = Sampling(0.7, 24)
REQUESTS = [
    RolloutRequest(f"p{n}", f"sum {n} a+5 b+2 ?", template, (0, 1, 2), 7)
    for n in range(4)
    for template in ("", "Do not stop early.")
]


def engine(served_base: Path, policy: Path, urls: list[str], **settings: object) -> ServerEngine:
    return ServerEngine(served_base, policy, ServerEngineConfig.model_validate({"urls": urls, **settings}))


def check(policy: Policy, completions: list[Completion], requests: list[RolloutRequest]) -> None:
    """In order, each once, with the trainer's log-probs."""
    rows = [(request, sample) for request in requests for sample in request.samples]
    assert [(c.problem_id, c.template, c.sample) for c in completions] == [
        (r.problem_id, r.template, sample) for r, sample in rows
    ]
    for completion, (request, _) in zip(completions, rows, strict=True):
        prompt = policy.chat.encode_prompt(request.question, request.template)
        batch = Batch.collate([prompt], [completion.token_ids], policy.chat.pad_id)
        with torch.no_grad():
            ours = policy.completion_logps(batch, SAMPLING.temperature)[0]
        torch.testing.assert_close(torch.tensor(completion.logps), ours, atol=1e-3, rtol=0)
        assert completion.truncated == (completion.token_ids[-1] != policy.chat.eos_id)


def test_adapters_are_loaded_at_run_time(servers: list[Served], served_base: Path, tmp_path: Path) -> None:
    urls = [server.url for server in servers]
    answers = {}
    for seed in (1, 2):
        policy = moved_adapter(served_base, tmp_path / str(seed), seed=seed)
        sampler = engine(served_base, tmp_path / str(seed), urls, concurrency=4)
        completions = sampler.generate(REQUESTS, SAMPLING)
        check(policy, completions, REQUESTS)
        assert sampler.stats.answered.total() == len(completions)
        answers[seed] = [completion.token_ids for completion in completions]
    base = [c.token_ids for c in engine(served_base, served_base, urls).generate(REQUESTS, SAMPLING)]
    assert answers[1] != answers[2] != base != answers[1]


def test_greedy_and_nothing(servers: list[Served], served_base: Path) -> None:
    sampler = engine(served_base, served_base, [servers[0].url])
    greedy = sampler.generate(REQUESTS[:1], Sampling(0.0, 8))
    assert len({completion.token_ids for completion in greedy}) == 1
    assert set(greedy[0].logps) == {0.0}
    assert sampler.generate([], SAMPLING) == []


def test_completions_are_scored_as_the_trainer_scores_them(
    servers: list[Served], served_base: Path, tmp_path: Path
) -> None:
    """At temperature 1 under any prompt, by several servers, in order."""
    policy = moved_adapter(served_base, tmp_path / "4", seed=4)
    scorer = engine(served_base, tmp_path / "4", [server.url for server in servers], concurrency=4)
    asked = [
        LogprobRequest(c.problem_id, REQUESTS[2 * int(c.problem_id[1:])].question, template, c.token_ids)
        for c in scorer.generate(REQUESTS, SAMPLING)
        for template in ("", "Do not stop early.")
    ]
    ours = EmbeddedEngine(policy, rows_per_batch=64).completion_logps(asked)
    for mine, scored in zip(ours, scorer.completion_logps(asked), strict=True):
        torch.testing.assert_close(torch.tensor(scored), torch.tensor(mine), atol=1e-3, rtol=0)
    assert scorer.stats.answered.total() == len(asked)
    assert scorer.completion_logps([]) == []


SHORT = b'{"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [-0.1]}, "finish_reason": "stop"}]}'


def test_failures_are_counted_and_survived(servers: list[Served], served_base: Path) -> None:
    planned = ["500", "503", "429", "junk", "empty", "short", "timeout"]
    faults = Faults(servers[0].url, list(planned), {"junk": b"<html>", "empty": b'{"choices": []}', "short": SHORT})
    with proxied(faults) as url:
        sampler = engine(served_base, served_base, [url], concurrency=2, timeout_s=2.0)
        completions = sampler.generate(REQUESTS, SAMPLING)
    check(Policy.create(served_base, LORA, seed=0), completions, REQUESTS)
    assert faults.injected == planned
    assert sampler.stats.failed == {"http_500": 1, "http_503": 1, "http_429": 1, "junk": 3, "timeout": 1}


def test_a_server_that_serves_another_policy_is_found_out(
    servers: list[Served], served_base: Path, tmp_path: Path
) -> None:
    """Each server, as it joins: the adapter passes, the base in its place does not."""
    with_witness(moved_adapter(served_base, tmp_path / "6", seed=6), tmp_path / "6")
    sampler = engine(served_base, tmp_path / "6", [server.url for server in servers])
    assert len(sampler.generate(REQUESTS[:1], SAMPLING)) == 3
    sampler.model = BASE_MODEL  # what a server does that takes an adapter and does not apply it
    with pytest.raises(OtherPolicyServed, match=r"http://127.0.0.1:\d+ serves .*Mend"):
        sampler.generate(REQUESTS[:1], SAMPLING)


def test_full_weights_are_read_between_iterations(servers: list[Served], served_base: Path, tmp_path: Path) -> None:
    """In place, on a server started for them; what was cached of the last ones is gone. The base comes back."""
    policies = {"base": Policy.load(served_base, served_base, FullPolicy())}
    for name in ("one", "two"):
        policy = Policy.load(served_base, served_base, FullPolicy())
        with torch.no_grad():
            for parameter in policy.trainable_parameters().values():
                parameter.mul_(1.5 if name == "one" else 0.7)
        policy.save(tmp_path / name)
        policies[name] = policy
    with pytest.raises(EngineUnavailable, match=r"takes no full weights\. Mend: start it with `p2o serve`"):
        engine(served_base, tmp_path / "one", [servers[0].url]).generate(REQUESTS, SAMPLING)
    with running(served_base, tmp_path, 1, FullPolicy()) as (server,):
        for name in ("one", "two", "one", "base"):
            folder = served_base if name == "base" else tmp_path / name
            check(policies[name], engine(served_base, folder, [server.url]).generate(REQUESTS, SAMPLING), REQUESTS)
        gone = shutil.copytree(tmp_path / "one", tmp_path / "gone")
        lost = engine(served_base, gone, [server.url], patience_s=3.0)
        shutil.rmtree(gone)
        with pytest.raises(EngineUnavailable, match="weights not read"):
            lost.generate(REQUESTS, SAMPLING)


def test_nobody_there_ends_in_an_error(served_base: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    started = quiet_s()
    with pytest.raises(EngineUnavailable, match=rf"{nobody}.*p2o serve"):
        engine(served_base, served_base, [nobody], patience_s=2.0).generate(REQUESTS, SAMPLING)
    assert quiet_s() - started < 20


def test_a_killed_server_loses_and_doubles_nothing(servers: list[Served], served_base: Path, tmp_path: Path) -> None:
    """Last in this file: it ends one of the two servers."""
    policy = moved_adapter(served_base, tmp_path / "3", seed=3)
    requests = [RolloutRequest(f"q{n}", f"sum {n} a+5 b+2 ?", "", tuple(range(4)), 11) for n in range(60)]
    done: list[int] = []
    killed: list[str] = []

    def kill_once_busy(rows: int) -> None:
        done.append(rows)
        busy = next((server for server in servers if sampler.stats.answered[server.url] >= 5), None)
        if busy is not None and not killed:  # whichever is busy: on a full machine one may have nothing to do
            killed.append(busy.url)
            busy.kill()

    for server in servers:  # a server's first requests take seconds, in which the other one would answer everything
        engine(served_base, tmp_path / "3", [server.url]).generate(requests[:2], SAMPLING)
    sampler = engine(served_base, tmp_path / "3", [server.url for server in servers], concurrency=8)
    sampler.on_rows = kill_once_busy
    completions = sampler.generate(requests, SAMPLING)
    check(policy, completions, requests)
    assert sum(done) == len(completions) == 240
    assert sampler.stats.failed["connection"] > 0, "the kill came in the middle of requests"
    assert sampler.stats.answered[killed[0]] < 200, "the other one took over"
