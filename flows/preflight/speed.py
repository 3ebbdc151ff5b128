"""How fast a machine is at a recipe: from its data sheet, or measured here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import Field, PositiveFloat, PositiveInt

from flows.preflight.shapes import GIB, WIDTH, Shape
from flows.preflight.work import Assumptions, Work
from p2o_core.config import Section, Share
from p2o_core.schemas import BadInput, read_problems
from tasks.parameters.experiment import Experiment
from tasks.running.layout import Layout, home
from tasks.running.runtime import Runtime

MACHINES_FILE = Path("recipes") / "machines.yaml"
CALIBRATION_ROWS = 128
"""Completions at most that are written to measure the engine."""


class Machine(Section):
    """One accelerator: what decoding and training are bound by."""

    memory_gib: PositiveFloat = Field(..., description="of the device")
    bandwidth: PositiveFloat = Field(..., description="of its memory, GB/s")
    tflops: PositiveFloat = Field(..., description="bfloat16 peak, dense")
    decode_efficiency: Share = Field(..., description="share of the bandwidth that decoding reaches")
    mfu: Share = Field(..., description="share of the peak that training and prefill reach")
    link: PositiveFloat = Field(..., description="to its neighbours in the node, GB/s one way")
    network: PositiveFloat = Field(..., description="to other nodes, GB/s one way, each accelerator's share")
    node: PositiveInt = Field(8, description="accelerators a node")


@dataclass(frozen=True)
class Speed:
    """Tokens a second: written by the engine, and forward passes of the trainer (a backward pass is two)."""

    decode: float
    forward: float
    source: str
    verify: float = float("inf")
    """Completions a second."""

    def seconds(self, work: Work) -> float:
        """Prompts are read at the trainer's speed; a measured decoding speed has them in it already. Start-up, swapped
        weights and saved checkpoints are not in it: short runs take up to twice as long (docs/results.md)."""
        verifying = work.completions / self.verify
        return work.tokens / self.decode + (work.prompt_tokens + work.passes) / self.forward + verifying


def machine_named(name: str, start: Path) -> Machine:
    """An entry of recipes/machines.yaml. Raises BadInput."""
    path = home(start) / MACHINES_FILE
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    if name not in known:
        raise BadInput(f"--machine {name}: not in {path}. Mend: 'here', or one of {', '.join(known)}.")
    try:
        return Machine.model_validate(known[name])
    except ValueError as error:
        raise BadInput(f"{path}: entry {name!r}: {error}. Mend: correct its fields.") from error


@dataclass(frozen=True)
class Roofline:
    """An experiment on one machine of the data sheet. Decoding reads all weights and every row's keys and values once
    a token; what takes longer of that and the arithmetic counts (https://jax-ml.github.io/scaling-book/inference).
    Training is 2 operations a weight and token."""

    experiment: Experiment
    shape: Shape
    machine: Machine
    assumed: Assumptions

    @property
    def rows(self) -> int:
        """Completions that have room side by side. Raises BadInput: the weights leave none for a single one."""
        room = self.machine.memory_gib * GIB * 0.85 - self._weights
        rows = min(getattr(self.experiment.sampler, "max_sequences", 256), int(room // self._cache))
        if rows < 1:
            raise BadInput(
                f"the policy does not fit into {self.machine.memory_gib:g} GiB. Mend: name a larger machine."
            )
        return rows

    def step_s(self, rows: int) -> float:
        """Seconds in which ``rows`` completions get a token each."""
        read = self._weights + rows * self._cache / 2
        reading = read / (self.machine.bandwidth * 1e9 * self.machine.decode_efficiency)
        return max(reading, rows / self.forward)

    @property
    def forward(self) -> float:
        """Tokens a second of a forward pass."""
        return self.machine.tflops * 1e12 * self.machine.mfu / (2 * self.shape.parameters)

    def speed(self) -> Speed:
        """Raises BadInput: as ``rows``."""
        rows, engine = self.rows, self.experiment.engine
        devices = engine.actors if engine.type == "ray" else 1
        source = f"data sheet, {rows} rows side by side" + (f", {devices} actors" if devices > 1 else "")
        return Speed(devices * rows / self.step_s(rows), self.forward, source)

    @property
    def _weights(self) -> int:
        return self.shape.parameters * WIDTH[self.experiment.policy.engine_dtype]

    @property
    def _cache(self) -> float:
        """Bytes of a whole completion's keys and values."""
        width, tokens = WIDTH[self.experiment.policy.engine_dtype], self.assumed.completion_tokens
        return (self.assumed.prompt_tokens + tokens) * 2 * self.shape.layers * self.shape.kv_width * width


def calibrate(experiment: Experiment, layout: Layout, assumed: Assumptions | None) -> tuple[Speed, Assumptions]:
    """Seconds of real work on this machine: held-out problems through the recipe's engine, then a micro-batch of
    what it wrote through the trainer, forwards and backwards, and all of it through the verifier.
    Lengths are measured too, where not assumed.

    Raises:
        BadInput: the workspace has no base policy yet.
    """
    base = layout.base / "policy"
    if not base.exists():
        raise BadInput(
            f"{base}: no base policy to measure. Mend: `p2o stage prepare` in that workspace, or --machine NAME."
        )
    import torch

    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.groups import TrainingSample
    from p2o_core.microbatch import microbatches

    torch.set_num_threads(experiment.threads)
    rollout, style = experiment.rollout, experiment.rollout.prompt
    asked = -(-min(CALIBRATION_ROWS, rollout.problems * rollout.samples) // rollout.samples)
    problems = read_problems(layout.base / "train.parquet")[:asked]
    requests = [RolloutRequest(p.id, p.question, "", tuple(range(rollout.samples)), 1, style) for p in problems]
    with Runtime() as runtime:
        engine = runtime.engine(base, base, experiment)
        engine.generate(requests[:1], Sampling(rollout.temperature, 4))  # start-up is not speed
        started = time.perf_counter()
        written = engine.generate(requests, Sampling(rollout.temperature, rollout.max_new_tokens))
        decode_s = time.perf_counter() - started
        policy = runtime.trainer(base, base, experiment.policy)
        prompts = {p.id: policy.chat.encode_prompt(p.question, "", style) for p in problems}
        samples = [
            TrainingSample(c.problem_id, prompts[c.problem_id], c.token_ids, c.logps, reward=0.0, templated=False)
            for c in written
        ]
        batch = next(microbatches(policy, samples, experiment.distill.tokens_per_microbatch))
        passes = 4 if experiment.policy.checkpointing else 3
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            policy.completion_logps(batch, rollout.temperature).sum().backward()
            forward_s = (time.perf_counter() - started) / passes
        verifier = runtime.verifier(experiment)
        verifier.verify([("1", "1")])  # its workers start
        started = time.perf_counter()
        golds = {p.id: p.gold for p in problems}
        verifier.verify([(c.text, golds[c.problem_id]) for c in written])
        verify_s = time.perf_counter() - started
    tokens = sum(len(c.token_ids) for c in written)
    measured = Assumptions(tokens / len(written), sum(map(len, prompts.values())) / len(prompts))
    assumed = replace(assumed, prompt_tokens=measured.prompt_tokens) if assumed else measured
    trained = sum(len(r.prompt_ids) + len(r.completion_ids) for r in batch.samples)
    source = f"measured here on {len(written)} completions"
    return Speed(tokens / decode_s, trained / forward_s, source, len(written) / verify_s), assumed
