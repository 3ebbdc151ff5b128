"""Everything that needs a card, one after the other: `make gpu`, at most nine minutes on one GPU.

    python -m stress.gpu [--device cuda] [--small] [--report gpu.md]

vLLM on CUDA with a random Qwen3-0.6B: the same answers before and after sleep, a policy that was trained swapped in
(weights, then adapters) and its log-probs held against the trainer's; an update in bfloat16; the same update by FSDP2
with one process; one iteration of a recipe through all stages. Exit status 1 when a check fails; the others still run.
``--device cpu --small`` runs the same code on a processor with a tiny shape.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from benchmarks.gpu import SHAPES, TINY, card, check_card

if TYPE_CHECKING:
    from benchmarks.inputs import Shape
    from p2o_core.engines.vllm import VllmEngine
    from p2o_core.policy import Policy

CLOSE = 0.1
"""Nats a token that engine and trainer may differ by in bfloat16, on average."""


@dataclass
class Machine:
    """What all checks share: ``base`` is a folder with random weights, ``numbers`` what a check found."""

    device: str
    shape: Shape
    folder: Path
    small: bool
    numbers: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    def random(self, *, lora: bool, moved_to: str = "") -> Policy:
        """A policy on ``base``; saved to the folder ``moved_to`` after its weights were moved a little."""
        import torch

        from p2o_core.config import FullPolicy, LoraPolicy
        from p2o_core.policy import Policy

        kind = LoraPolicy if lora else FullPolicy
        policy = Policy.create(self.base, kind(dtype=self.dtype, device=self.device), seed=0)
        if moved_to:
            torch.manual_seed(len(moved_to))
            with torch.no_grad():
                for parameter in policy.trainable_parameters().values():
                    parameter.add_(0.02 * torch.randn_like(parameter))
            policy.save(self.folder / moved_to)
        return policy

    def vllm(self, *, lora: bool) -> VllmEngine:
        from p2o_core.config import FullPolicy, LoraPolicy, VllmEngineConfig
        from p2o_core.engines.vllm import VllmEngine

        kind = LoraPolicy if lora else FullPolicy
        config = VllmEngineConfig(max_model_len=256, max_sequences=64, gpu_memory=0.4, cpu_cache_gib=1)
        return VllmEngine(self.base, kind(dtype=self.dtype, device=self.device), config)

    def free_gib(self) -> float:
        import torch

        return torch.cuda.mem_get_info()[0] / 2**30 if self.device.startswith("cuda") else 0.0


def sleep_and_wake(machine: Machine) -> None:
    """vLLM gives its memory back and says the same afterwards."""
    engine = machine.vllm(lora=False)
    try:
        before, awake = _answers(engine), machine.free_gib()
        engine.sleep()
        asleep = machine.free_gib()
        began = time.perf_counter()
        engine.use(machine.base)
        machine.numbers["wake"] = f"{time.perf_counter() - began:.1f} s, {asleep - awake:.1f} GiB were free meanwhile"
        assert _answers(engine) == before, "other tokens after sleep"
    finally:
        engine.close()


def weights_swap(machine: Machine) -> None:
    """Full weights that were trained are what vLLM samples from."""
    _swap(machine, lora=False)


def adapter_swap(machine: Machine) -> None:
    """So is an adapter, and the base when it is gone."""
    _swap(machine, lora=True)


def _swap(machine: Machine, *, lora: bool) -> None:
    from p2o_core.engines.base import LogprobRequest

    name = "adapter" if lora else "weights"
    trained = machine.random(lora=lora, moved_to=name)
    engine = machine.vllm(lora=lora)
    try:
        reference = _answers(engine)
        began = time.perf_counter()
        engine.use(machine.folder / name)
        taken = time.perf_counter() - began
        written = _answers(engine)
        assert written != reference, "the same tokens as the base"
        asked = LogprobRequest("p", "sum 3 a+5 b+2 ?", "", written[0])
        prompt = trained.chat.encode_prompt(asked.question)
        (ours,) = trained.score([prompt], [asked.token_ids], 1.0, tokens=4096)
        (theirs,) = engine.completion_logps([asked])
        apart = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(theirs)
        machine.numbers[f"swap of the {name}"] = f"{taken:.2f} s; {apart:.4f} nats a token from the trainer"
        assert apart < CLOSE, f"{apart:.3f} nats a token from the trainer"
        engine.use(machine.base)
        assert _answers(engine) == reference, "the base is not the base any more"
    finally:
        engine.close()


def update(machine: Machine) -> None:
    """A step of 16 groups in one process, then in FSDP2 with one: the same weights."""
    from benchmarks.inputs import random_groups
    from p2o_core.config import DistillConfig, FullPolicy
    from p2o_core.optimizer import PolicyOptimizer
    from p2o_core.sharding.job import UpdateJob
    from p2o_core.sharding.launch import update_in_processes
    from p2o_core.update import update_policy

    count, longest, prompt = (4, 48, 16) if machine.small else (16, 1024, 64)
    groups = random_groups(
        groups=count,
        samples=8,
        shortest=16,
        longest=longest,
        prompt=prompt,
        vocabulary=machine.shape.vocabulary,
        signal=1.0,
        seed=0,
    )
    config = DistillConfig(groups_per_minibatch=len(groups), tokens_per_microbatch=8192, learning_rate=1e-4)
    policy = machine.random(lora=False)
    optimizer = PolicyOptimizer(policy, config)
    optimizer.save(machine.folder / "optimizer")
    began = time.perf_counter()
    update_policy(policy, optimizer, groups, config, temperature=1.0, seed=0)
    seconds = time.perf_counter() - began
    tokens = sum(len(sample.completion_ids) for group in groups for sample in group)
    machine.numbers["update"] = f"{tokens / seconds:,.0f} completion tokens/s ({machine.dtype})"
    job = UpdateJob(
        policy=machine.base,
        base=machine.base,
        optimizer=machine.folder / "optimizer",
        new_policy=machine.folder / "sharded",
        new_optimizer=machine.folder / "sharded-optimizer",
        checkpoints=machine.folder / "checkpoints",
        policy_config=FullPolicy(dtype=machine.dtype, device=machine.device),
        config=config,
        temperature=1.0,
        seed=0,
        threads=1,
    )
    began = time.perf_counter()
    update_in_processes(job, groups, machine.folder / "job", 1)
    machine.numbers["update by FSDP2"] = f"{time.perf_counter() - began:.0f} s with torchrun's start"
    sharded = type(policy).load(machine.folder / "sharded", machine.base, job.policy_config)
    theirs = sharded.trainable_parameters()
    apart = max(float((p - theirs[name]).abs().max()) for name, p in policy.trainable_parameters().items())
    machine.numbers["largest difference of a weight"] = f"{apart:.1e}"
    assert apart < (1e-2 if machine.dtype == "bfloat16" else 1e-5), f"weights {apart:.1e} apart"


def iteration(machine: Machine) -> None:
    """Every stage of a recipe with random weights of this shape, at the recipe's batch sizes."""
    from flows.preflight.dry_run import dry_run, stand_in
    from flows.versioning.workspace import preview
    from tasks.parameters.experiment import Experiment
    from tasks.problems.base_policy import FolderPolicy

    recipe, _ = preview(Path(), recipe="qwen3-0.6b-gsm8k")
    device = {"device": "cuda:0" if machine.device.startswith("cuda") else "cpu"}
    small, _ = stand_in(recipe.model_copy(update={"policy": recipe.policy.model_copy(update=device)}))
    own: Experiment = small.model_copy(
        update={"prepare": small.prepare.model_copy(update={"policy": FolderPolicy(path=machine.base)})}
    )
    began = time.perf_counter()
    facts = dry_run(own, machine.folder / "run", lambda name, seconds: None)
    machine.numbers["an iteration"] = f"{time.perf_counter() - began:.0f} s; {facts['rollouts']}; {facts['update']}"


CHECKS: tuple[Callable[[Machine], None], ...] = (sleep_and_wake, weights_swap, adapter_swap, update, iteration)


def _answers(engine: VllmEngine) -> list[tuple[int, ...]]:
    from p2o_core.engines.base import RolloutRequest, Sampling

    requests = [RolloutRequest(f"p{n}", f"sum {n} a+5 b+2 ?", "", (0, 1), 7) for n in range(8)]
    return [completion.token_ids for completion in engine.generate(requests, Sampling(1.0, 32))]


def main(
    device: Annotated[str, typer.Option(help="torch device.")] = "cuda",
    small: Annotated[bool, typer.Option(help="A tiny shape in place of Qwen3-0.6B's.")] = False,
    report: Annotated[Path | None, typer.Option(help="Markdown file for what was found.")] = None,
) -> None:
    """Run all checks and print what they found."""
    import torch

    console = Console(width=120)
    check_card(device, "make gpu", console)
    from benchmarks.inputs import Shape, random_policy
    from p2o_core.optimizer import release_memory

    name, _ = card(device)
    lines, failed = [f"# `make gpu` on {name}, torch {torch.__version__}", ""], []
    with tempfile.TemporaryDirectory(prefix="p2o-gpu-") as scratch:
        # vLLM on a processor has no attention for smaller heads
        shape = Shape(**(TINY | {"head_size": 32} if small else SHAPES["Qwen3-0.6B"]), architecture="qwen3")
        machine = Machine(device, shape, Path(scratch), small)
        random_policy(shape, machine.base, lora=False, dtype=machine.dtype, device="cpu")
        for check in CHECKS:
            began = time.perf_counter()
            try:
                check(machine)
                ended = "passed"
            except Exception:
                failed.append(check.__name__)
                ended = f"FAILED\n```\n{traceback.format_exc(limit=-3)}```"
            lines.append(f"- {check.__name__}: {ended} ({time.perf_counter() - began:.0f} s)")
            console.print(lines[-1], markup=False)
            release_memory()
        lines += ["", *(f"- {what}: {found}" for what, found in machine.numbers.items())]
    console.print("\n".join(lines[len(CHECKS) + 2 :]), markup=False)
    if report is not None:
        report.write_text("\n".join(lines) + "\n")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
