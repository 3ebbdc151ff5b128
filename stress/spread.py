"""What spreading costs and brings on this machine: tokens a second in this process, with one actor and with two, and
the bytes of a swap. ``python -m stress.spread``, with nothing beside it.

A random Qwen3 of 256 × 4 on one thread each; the engines are warm, the clock runs over whole calls. Beside it stand
tokens a second of processor time, of this process and all of Ray's: what spreading costs, also on a machine that is not
quiet.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from p2o_core.cluster.connection import Cluster
from p2o_core.cluster.engine import RayEngine
from p2o_core.config import EmbeddedEngineConfig, FullPolicy, LoraPolicy, PolicyConfig, RayEngineConfig
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.policy import Policy, settle_arithmetic
from p2o_core.types import Completion
from tasks.problems.base_policy import RandomPolicy

ROWS, SAMPLES, PROMPTS, TOKENS, REPEATS = 32, 8, 32, 48, 2


def requests(stream: int) -> list[RolloutRequest]:
    questions = [f"What is {number} + {7 * number}?" for number in range(PROMPTS)]
    return [RolloutRequest(str(n), asked, "", tuple(range(SAMPLES)), stream) for n, asked in enumerate(questions)]


def measured(name: str, engine: RolloutEngine) -> list[Sequence[Completion]]:
    """Print the speed of some calls, the first of which is not counted. Returns the completions of all."""
    answers, tokens, wall_s, work_s = [], 0, 0.0, 0.0
    for stream in range(REPEATS + 1):
        started, worked = time.perf_counter(), _processor_seconds()
        answers.append(engine.generate(requests(stream), Sampling(1.0, TOKENS)))
        if stream:
            tokens += sum(len(c.token_ids) for c in answers[-1])
            wall_s += time.perf_counter() - started
            work_s += _processor_seconds() - worked
    load = os.getloadavg()[0]
    print(f"{name}: {tokens / wall_s:,.0f} tokens/s, {tokens / work_s:,.0f} a processor second (load {load:.1f})")
    return list(answers)


def _processor_seconds() -> float:
    """Of this process and its children, actors among them."""
    own = psutil.Process()
    times = (process.cpu_times() for process in (own, *own.children(recursive=True)))
    return sum(each.user + each.system for each in times)


def swap(engine: RayEngine, make: Callable[[Path], object], folder: Path) -> str:
    make(folder)
    before = engine.swaps
    engine.use(folder)
    started = time.perf_counter()
    engine.generate(requests(0)[:1], Sampling(1.0, 1))
    sent = engine.swaps.size - before.size
    return f"{sent:,} bytes in {engine.swaps.count - before.count} folders, {time.perf_counter() - started:.2f} s"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    settle_arithmetic(1)
    print(f"{os.cpu_count()} cores")
    full, lora = FullPolicy(), LoraPolicy(rank=16)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        RandomPolicy(hidden_size=256, layers=4).load(base, ()).save(base)
        alone = measured("in process", EmbeddedEngine(Policy.load(base, base, full), rows_per_batch=ROWS))
        started = time.perf_counter()
        cluster = Cluster("", slots=2)
        print(f"local cluster started in {time.perf_counter() - started:.1f} s")
        try:
            for actors in (1, 2):
                engine = spread(base, full, actors, cluster)
                if measured(f"{actors} actors", engine) != alone:
                    raise SystemExit("not one process's completions")
                print(f"swap of full weights: {swap(engine, _other(base, full), Path(name) / f'full-{actors}')}")
                engine.close()
            engine = spread(base, lora, 1, cluster)
            for number in (1, 2):  # the base goes with the first
                print(f"swap of an adapter: {swap(engine, _other(base, lora, number), Path(name) / f'lora-{number}')}")
            engine.close()
        finally:
            cluster.close()


def spread(base: Path, policy: PolicyConfig, actors: int, cluster: Cluster) -> RayEngine:
    config = RayEngineConfig(engine=EmbeddedEngineConfig(rows_per_batch=ROWS), actors=actors)
    return RayEngine(base, policy, config, cluster)


def _other(base: Path, config: PolicyConfig, seed: int = 1) -> Callable[[Path], object]:
    """Saves a policy of other weights."""

    def make(folder: Path) -> None:
        policy = Policy.create(base, config, seed=seed)
        next(iter(policy.trainable_parameters().values())).data.add_(0.01)
        policy.save(folder)

    return make


if __name__ == "__main__":
    main()
