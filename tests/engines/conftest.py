"""Policies that vLLM can serve."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from microworld.pretrain import build_model
from microworld.tokenizer import build_tokenizer
from p2o_core.config import LoraPolicy, PolicyConfig
from p2o_core.engines.serving import server_command
from p2o_core.policy import Policy
from p2o_core.prompts import Chat
from p2o_core.schemas import write_record
from p2o_core.witness import FILE, Witness
from tests.conftest import TINY
from tests.loopback import free_port

LORA = LoraPolicy(rank=4)


@pytest.fixture(scope="session")
def served_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose heads are 32 wide, the least that vLLM's CPU attention takes."""
    folder = tmp_path_factory.mktemp("served") / "base"
    tokenizer = build_tokenizer()
    settings = replace(TINY, seed=3, hidden_size=64)
    Policy(build_model(settings, tokenizer), Chat(tokenizer)).save(folder)
    return folder


def moved_adapter(base: Path, folder: Path, *, seed: int, scale: float = 0.2) -> Policy:
    """An adapter away from its start (B is zero there and changes nothing), saved to ``folder``."""
    policy = Policy.create(base, LORA, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    policy.save(folder)
    return policy


def with_witness(policy: Policy, folder: Path) -> Witness:
    """In the folder of a moved adapter: as an update that moved it from the base would leave it."""
    ids = policy.chat.tokenizer("a +5 6 b +2 8 \\boxed{ 8 }", add_special_tokens=False)["input_ids"]
    prompt = policy.chat.encode_prompt("sum 1 a+5 b+2 ?")

    def logps() -> tuple[float, ...]:
        return policy.score([prompt], [ids], 1.0, tokens=512)[0]

    with policy.model.disable_adapter():
        before = logps()
    witness = Witness("p", prompt, tuple(ids), before, logps())
    write_record(folder / FILE, witness)
    return witness


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


def start(base: Path, log: Path, policy: PolicyConfig = LORA) -> Served:
    port = free_port()
    command, extra = server_command(base, policy, port=port, max_model_len=256, cpu_cache_gib=1)
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


@contextmanager
def running(base: Path, folder: Path, count: int, policy: PolicyConfig = LORA) -> Iterator[list[Served]]:
    logs = [folder / f"{n}.log" for n in range(count)]
    started = [start(base, log, policy) for log in logs]
    try:
        for server, log in zip(started, logs, strict=True):
            wait_until_well(server, log)
        yield started
    finally:
        for server in started:
            if server.process.poll() is None:
                server.kill()


@pytest.fixture(scope="session")
def servers(served_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    with running(served_base, tmp_path_factory.mktemp("logs"), 2) as started:
        yield started
