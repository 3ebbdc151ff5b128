"""What an update reports: means of the loss metrics, engine differences, the template ratios' histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from p2o_core.evaluation import Skills
from p2o_core.transfer import SampleId

if TYPE_CHECKING:  # torch is not imported by those who only draw a report
    from p2o_core.groups import TrainingSample
    from p2o_core.losses import LossOutputs
    from p2o_core.sharding.team import Team

RATIO_EDGES = np.linspace(-5.0, 2.0, 29)
"""Edges of the template-ratio histogram, log10: quarters of a decade."""
ENGINE_METRICS = ("engine_log_ratio_mean", "engine_log_ratio_max", "engine_kl")
"""Of updates that compared the engine's log-probs with the trainer's."""


@dataclass(frozen=True)
class Masked:
    """A templated rollout of whose completion tokens the share ``share`` lies outside the template mask's bounds."""

    problem_id: str
    sample: int
    share: float


MASKED_FROM = 0.01
MASKED_KEPT = 32


@dataclass(frozen=True)
class UpdateReport:
    """What an update did. ``status`` is ``updated``, ``no_signal`` (no group had variance) or ``off``; ``metrics`` are
    empty without a step."""

    status: Literal["updated", "no_signal", "off"]
    groups: int
    groups_with_signal: int
    rollouts_trained: int
    planned_steps: int
    steps: int
    metrics: Mapping[str, float]
    template_ratios: Sequence[int]
    """Completion tokens of templated rollouts by log10 of their template ratio, in :data:`RATIO_EDGES`' bins."""
    masked: Annotated[Sequence[Masked] | None, Field(exclude_if=lambda value: not value)] = field(
        default=None, kw_only=True
    )
    """The templated rollouts that lost most to the template mask, :data:`MASKED_KEPT` at most."""


@dataclass(frozen=True)
class SkillCheck(Skills):
    """The skills around an update, and what became of the policy."""

    answer: Literal["kept", "warned", "rolled_back"]


@dataclass(frozen=True)
class IterationUpdate(UpdateReport):
    """An iteration's update with what came before and after it: update.json."""

    optimizer_steps: int
    """Of all iterations."""
    templated_solve_rate: float
    """Mean reward of the templated completions, 0 without any."""
    templated_tokens: int
    """Generated in this stage; the search paid for those of the ``reused`` completions."""
    reused: int
    entropy: float
    """Nats a token, of the bare completions."""
    skills: SkillCheck | None
    """None: nothing was probed."""
    templated_prompt_tokens: int = 0
    """Of the prompts that those generated here were sampled from."""


@dataclass
class RunningMeans:
    """Token-weighted means of the loss metrics over an update; the loss itself adds up within a step.

    A checkpoint's JSON keeps every bit of its floats, and an interrupted update goes on from them.
    """

    steps: int = 0
    tokens: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0
    norm: float = 0.0
    largest_norm: float = 0.0

    def add(self, outputs: LossOutputs, tokens: float) -> None:
        """The loss of a micro-batch with so many completion tokens."""
        self.loss += float(outputs.loss.detach())
        self.tokens += tokens
        for name, value in outputs.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + tokens * value

    def add_step(self, gradient_norm: float) -> None:
        """An optimiser step."""
        self.steps += 1
        self.norm += gradient_norm
        self.largest_norm = max(self.largest_norm, gradient_norm)

    def total(self, team: Team) -> RunningMeans:
        """Of all processes, which count the same steps and each their own tokens."""
        tokens, loss, *metrics = team.sum_numbers([self.tokens, self.loss, *self.metrics.values()])
        return replace(self, tokens=tokens, loss=loss, metrics=dict(zip(self.metrics, metrics, strict=True)))

    def share(self, team: Team) -> RunningMeans:
        """What one process goes on from, so that :meth:`total` is right: the first one has all, the others zeros."""
        if team.first:
            return self
        return replace(self, tokens=0.0, loss=0.0, metrics=dict.fromkeys(self.metrics, 0.0))

    def means(self) -> dict[str, float]:
        """By metric name; empty before the first step."""
        if not self.steps:
            return {}
        return {name: total / self.tokens for name, total in self.metrics.items()} | {
            "loss": self.loss / self.steps,
            "gradient_norm": self.norm / self.steps,
            "gradient_norm_max": self.largest_norm,
        }


def engine_metrics(samples: Sequence[TrainingSample]) -> dict[str, float]:
    """How far trainer and engine are apart on the samples that were compared, over their tokens: mean and largest
    |log ratio|, and k3, the low-variance estimate of KL(engine || trainer) (http://joschu.net/blog/kl-approx.html)."""
    logs = np.array([ratio for sample in samples for ratio in sample.engine_log_ratios])
    if not logs.size:
        return {}
    values = (np.abs(logs).mean(), np.abs(logs).max(), (np.exp(logs) - 1 - logs).mean())
    return dict(zip(ENGINE_METRICS, map(float, values), strict=True))


def transfer_metrics(log_ratios: Mapping[SampleId, float]) -> dict[str, float]:
    """Δ of the correct templated samples that were measured, see :mod:`p2o_core.transfer`; empty without any."""
    return {"transfer_log_ratio": float(np.mean(list(log_ratios.values())))} if log_ratios else {}


def template_ratio_histogram(samples: Iterable[TrainingSample]) -> list[int]:
    """Counts for :class:`UpdateReport`; ratios beyond the outer edges count in the outer bins."""
    log10 = [
        (bare - templated) / math.log(10)
        for sample in samples
        if sample.templated
        for bare, templated in zip(sample.old_logps, sample.template_reference, strict=True)
    ]
    counts, _ = np.histogram(np.clip(log10, RATIO_EDGES[0], RATIO_EDGES[-1]), RATIO_EDGES)
    return counts.tolist()


def most_masked(samples: Iterable[TrainingSample], low: float, high: float) -> list[Masked] | None:
    """The templated samples with more than :data:`MASKED_FROM` of their tokens outside the bounds, the most first; None
    without any."""
    found = []
    for sample in samples:
        if sample.templated:
            ratios = np.array(sample.old_logps) - np.array(sample.template_reference)
            share = float(np.mean((ratios < math.log(low)) | (ratios > math.log(high))))
            if share > MASKED_FROM:
                found.append(Masked(sample.problem_id, sample.sample, share))
    return sorted(found, key=lambda masked: (-masked.share, masked.problem_id, masked.sample))[:MASKED_KEPT] or None
