"""The ``server`` engine against real ``vllm serve`` processes on loopback, one of which is killed mid-batch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from p2o_core.config import ServerEngineConfig
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.server import EngineUnavailable, ServerEngine
from p2o_core.engines.serving import server_command
from p2o_core.policy import Batch, Policy
from p2o_core.types import Completion
from tests.engines.conftest import LORA, moved_adapter

pytest.importorskip("vllm", reason="the vllm extra is not installed: `make vllm`")

SAMPLING = Sampling(0.7, 24)
REQUESTS = [
    RolloutRequest(f"p{n}", f"sum {n} a+5 b+2 ?", template, (0, 1, 2), 7)
    for n in range(4)
    for template in ("", "Do not stop early.")
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Served:
    """A vLLM server of its own process group."""

    port: int
    process: subprocess.Popen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(base: Path, log: Path) -> Served:
    port = free_port()
    command, extra = server_command(base, LORA, port=port, max_model_len=256, cpu_cache_gib=1)
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=os.environ | extra, stdout=stream, stderr=stream, start_new_session=True
        )
    return Served(port, process)


def wait_until_well(server: Served, log: Path, patience_s: float = 240) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        assert server.process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)


@pytest.fixture(scope="module")
def servers(served_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    folder = tmp_path_factory.mktemp("logs")
    logs = [folder / f"{n}.log" for n in range(2)]
    started = [start(served_base, log) for log in logs]
    try:
        for server, log in zip(started, logs, strict=True):
            wait_until_well(server, log)
        yield started
    finally:
        for server in started:
            if server.process.poll() is None:
                server.kill()


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


@dataclass
class Faults:
    """What a proxy does with its first completion requests, one fault each; then it forwards."""

    target: str
    planned: list[str]
    injected: list[str] = field(default_factory=list)

    def handler(faults) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.forward(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                probing = json.loads(body).get("logprobs") == 2
                fault = "" if probing or not faults.planned or "completions" not in self.path else faults.planned.pop(0)
                if not fault:
                    return self.forward(body)
                faults.injected.append(fault)
                if fault == "timeout":
                    time.sleep(3)
                if fault.isdigit():
                    return self.answer(int(fault), b'{"error": "injected"}')
                junk = {"junk": b"<html>not json", "empty": b'{"choices": []}', "short": SHORT, "timeout": b"{}"}
                self.answer(200, junk[fault])

            def forward(self, body: bytes | None) -> None:
                request = urllib.request.Request(
                    faults.target + self.path, data=body, headers={"Content-Type": "application/json"}
                )
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        self.answer(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    self.answer(error.code, error.read())

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


SHORT = b'{"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [-0.1]}, "finish_reason": "stop"}]}'


def test_failures_are_counted_and_survived(servers: list[Served], served_base: Path) -> None:
    planned = ["500", "503", "429", "junk", "empty", "short", "timeout"]
    faults = Faults(servers[0].url, list(planned))
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), faults.handler())
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{proxy.server_address[1]}"
        sampler = engine(served_base, served_base, [url], concurrency=2, timeout_s=2.0)
        completions = sampler.generate(REQUESTS, SAMPLING)
    finally:
        proxy.shutdown()
    check(Policy.create(served_base, LORA, seed=0), completions, REQUESTS)
    assert faults.injected == planned
    assert sampler.stats.failed == {"http_500": 1, "http_503": 1, "http_429": 1, "junk": 3, "timeout": 1}


def test_full_weights_are_refused(served_base: Path, full_policy: Policy, tmp_path: Path) -> None:
    full_policy.save(tmp_path / "full")
    with pytest.raises(ValueError, match="full weights cannot be sent"):
        engine(served_base, tmp_path / "full", ["http://127.0.0.1:1"])


def test_nobody_there_ends_in_an_error(served_base: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match=rf"{nobody}.*p2o serve"):
        engine(served_base, served_base, [nobody], patience_s=2.0).generate(REQUESTS, SAMPLING)
    assert time.monotonic() - started < 20


def test_a_killed_server_loses_and_doubles_nothing(servers: list[Served], served_base: Path, tmp_path: Path) -> None:
    """Last in this file: it ends one of the two servers."""
    policy = moved_adapter(served_base, tmp_path / "3", seed=3)
    requests = [RolloutRequest(f"q{n}", f"sum {n} a+5 b+2 ?", "", tuple(range(4)), 11) for n in range(60)]
    done: list[int] = []

    def kill_once_busy(rows: int) -> None:
        done.append(rows)
        if sampler.stats.answered[servers[1].url] == 5 and servers[1].process.poll() is None:
            servers[1].kill()

    sampler = engine(served_base, tmp_path / "3", [server.url for server in servers], concurrency=8)
    sampler.on_rows = kill_once_busy
    completions = sampler.generate(requests, SAMPLING)
    check(policy, completions, requests)
    assert sum(done) == len(completions) == 240
    assert sampler.stats.failed["connection"] > 0, "the kill came in the middle of requests"
    assert sampler.stats.answered[servers[1].url] < 200, "the other one took over"
