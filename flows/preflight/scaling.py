"""How an experiment spreads over many accelerators: what divides by their number, what does not, what to change then.

Estimates, as in :mod:`flows.preflight.speed`: engines share the rollouts, and the trainer's processes a mini-batch
(fully sharded data parallelism). Three things do not divide: the longest completion of a batch, the rounds of a search
one after the other, and the weights that travel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.preflight.shapes import WIDTH
from flows.preflight.speed import Roofline
from flows.preflight.work import Work, passes_a_token
from p2o_core.config import LoraPolicy


@dataclass(frozen=True)
class StageTime:
    """Seconds of a stage over the whole experiment: ``divided`` shrinks with the number of accelerators, ``floor`` is
    what a stage takes on any number of them. ``bound`` says what the floor is."""

    stage: str
    divided: float
    floor: float
    bound: str

    @property
    def seconds(self) -> float:
        return max(self.divided, self.floor)


@dataclass(frozen=True)
class Spread:
    """An experiment on ``gpus`` accelerators. ``moved`` is the bytes a swap of the policy sends to an engine."""

    gpus: int
    stages: tuple[StageTime, ...]
    swaps_s: float
    moved: int

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages) + self.swaps_s

    def efficiency(self, alone: Spread) -> float:
        """Accelerator seconds on one of them over those here."""
        return alone.seconds / (self.seconds * self.gpus)

    @property
    def bound(self) -> str:
        """What costs most of what more accelerators would not make faster; blank while they would."""
        stuck = {stage.bound: stage.floor for stage in self.stages if stage.floor >= stage.divided}
        stuck["the swap of the weights"] = self.swaps_s
        bound, seconds = max(stuck.items(), key=lambda item: item[1])
        return bound if seconds > 0.1 * self.seconds else ""


def spread(roofline: Roofline, work: Sequence[Work], gpus: int) -> Spread:
    """The work on ``gpus`` of the machine. Raises BadInput: the weights do not fit into one of them."""
    experiment, machine = roofline.experiment, roofline.machine
    wire = (machine.link if gpus <= machine.node else machine.network) * 1e9  # bytes a second
    stages = [_generation(roofline, stage, gpus) for stage in work if stage.completions]
    stages += [_update(roofline, stage, gpus, wire) for stage in work if stage.passes]
    moved = _trained_bytes(roofline)
    swaps = experiment.iterations * moved / wire if gpus > 1 else 0.0  # a chain: each passes on what it gets
    return Spread(gpus, tuple(stages), swaps, moved)


def _generation(roofline: Roofline, stage: Work, gpus: int) -> StageTime:
    """An engine decodes its share side by side, as far as there is room; a smaller share makes a step cheaper by
    little, since all weights are read for it anyhow. The floor is the longest completion of each batch."""
    experiment, runs = roofline.experiment, float(stage.runs)
    longest = (experiment.evaluate if stage.stage == "evaluate" else experiment.rollout).max_new_tokens
    name = "templated" if stage.stage == "distill" else stage.stage
    bound = f"{name}: the longest completion"
    rows = max(1, min(roofline.rows, math.ceil(stage.completions / stage.runs / gpus)))
    if stage.stage == "evolve":  # a step samples under parents, then under their children, then scores those
        evolve, bound = experiment.evolve, "evolve: rounds one after the other"
        calls = evolve.parents * (2 * evolve.minibatch + evolve.dev_size)
        runs = 3 * stage.runs * evolve.max_metric_calls / calls
        rows = max(1, min(roofline.rows, math.ceil(calls / 3 / gpus)))
    divided = (stage.tokens / rows * roofline.step_s(rows) + stage.prompt_tokens / roofline.forward) / gpus
    return StageTime(name, divided, runs * longest * roofline.step_s(1), bound)


def _update(roofline: Roofline, stage: Work, gpus: int, wire: float) -> StageTime:
    """Fully sharded: a micro-batch gathers the weights twice and scatters their gradient once, behind the arithmetic
    unless it takes longer. An adapter is whole in every process, and only its gradient travels. The floor: an optimiser
    step has so many micro-batches, and no more processes than those help."""
    experiment, assumed = roofline.experiment, roofline.assumed
    step = experiment.distill.groups_per_minibatch * experiment.rollout.samples  # completions
    tokens = step * (assumed.prompt_tokens + assumed.completion_tokens)
    steps = stage.passes / passes_a_token(experiment) / tokens
    batches = max(1, math.ceil(tokens / experiment.distill.tokens_per_microbatch))
    computing = stage.passes / roofline.forward
    copies = 1 if isinstance(experiment.policy, LoraPolicy) else 3
    sending = steps * math.ceil(batches / gpus) * copies * _trained_bytes(roofline) / wire if gpus > 1 else 0.0
    return StageTime("update", max(computing / gpus, sending), computing / batches, "update: micro-batches a step")


def _trained_bytes(roofline: Roofline) -> int:
    """What a swap sends: all weights, or the adapter."""
    policy = roofline.experiment.policy
    return roofline.shape.trainable(policy) * WIDTH[policy.engine_dtype]
