"""The policy update: groups with signal in, optimiser steps out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from p2o_core.advantages import group_advantages
from p2o_core.config import DistillConfig
from p2o_core.losses import Aggregation, LossOutputs, policy_loss, template_ratio_mask
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Batch, Policy

RATIO_EDGES = np.linspace(-5.0, 2.0, 29)
"""Edges of the template-ratio histogram, log10: quarters of a decade."""


@dataclass(frozen=True)
class Rollout:
    """One completion as the update sees it.

    ``prompt_ids`` is the context the gradient is taken under: under context distillation the *bare* prompt,
    also when the completion was sampled under a template (``templated``). ``sampling_logps`` are the engine's,
    under the context it sampled from; ``old_logps`` those under ``prompt_ids`` before the first step.

    >>> Rollout("p0", (1, 2), (3,), (-0.1,), reward=1.0, templated=False).old_logps
    ()
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    sampling_logps: tuple[float, ...]
    reward: float
    templated: bool
    advantage: float = 0.0
    old_logps: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


Group = list[Rollout]


@dataclass(frozen=True)
class UpdateReport:
    """What an update did. ``status`` is ``updated`` or ``no_signal`` (no group had variance: nothing learnt)."""

    status: str
    groups: int
    groups_with_signal: int
    rollouts_trained: int
    planned_steps: int
    steps: int
    metrics: dict[str, float]
    template_ratios: list[int]
    """Completion tokens of templated rollouts by log10 of their template ratio, in :data:`RATIO_EDGES`' bins."""


def with_advantages(groups: Sequence[Group], *, normalize_std: bool) -> list[Group]:
    """The groups that carry a signal, each rollout with its advantage. A group without variance is left out
    wholly: neither numerator nor denominator of the loss sees it, so it contributes exactly nothing."""
    kept = []
    for group in groups:
        rewards = torch.tensor([rollout.reward for rollout in group])
        advantages = group_advantages(rewards, torch.zeros(len(group), dtype=torch.long), normalize_std=normalize_std)
        if advantages.any():
            kept.append([replace(r, advantage=a) for r, a in zip(group, advantages.tolist(), strict=True)])
    return kept


def update_policy(
    policy: Policy,
    optimizer: PolicyOptimizer,
    groups: Sequence[Group],
    config: DistillConfig,
    *,
    temperature: float,
    seed: int,
    on_step: Callable[[int, int], None] = lambda step, planned: None,
) -> UpdateReport:
    """One pass over the groups in mini-batches, an optimiser step each.

    Raises:
        FloatingPointError: loss or gradient is not finite; the weights are those before that step.
        RuntimeError: fewer steps were done than planned.
    """
    torch.manual_seed(seed)  # LoRA dropout, if any
    signal = with_advantages(groups, normalize_std=config.normalize_std)
    random.Random(seed).shuffle(signal)
    size = config.groups_per_minibatch
    planned = -(-len(signal) // size)
    totals = _Means()
    with_old = _with_old_logps(policy, signal, config, temperature)
    for step in range(planned):
        rollouts = [rollout for group in with_old[step * size : (step + 1) * size] for rollout in group]
        _train_step(policy, optimizer, rollouts, config, temperature, totals)
        on_step(step + 1, planned)
    if totals.steps != planned:
        raise RuntimeError(f"{planned} optimiser steps were planned, {totals.steps} were done")
    return UpdateReport(
        status="updated" if planned else "no_signal",
        groups=len(groups),
        groups_with_signal=len(signal),
        rollouts_trained=sum(map(len, signal)),
        planned_steps=planned,
        steps=totals.steps,
        metrics=totals.means(),
        template_ratios=template_ratio_histogram(rollout for group in with_old for rollout in group),
    )


def template_ratio_histogram(rollouts: Iterable[Rollout]) -> list[int]:
    """Counts for :class:`UpdateReport`; what lies beyond the outer edges counts in the outer bins."""
    log10 = [
        (old - sampling) / math.log(10)
        for rollout in rollouts
        if rollout.templated
        for old, sampling in zip(rollout.old_logps, rollout.sampling_logps, strict=True)
    ]
    counts, _ = np.histogram(np.clip(log10, RATIO_EDGES[0], RATIO_EDGES[-1]), RATIO_EDGES)
    return counts.tolist()


def _train_step(
    policy: Policy,
    optimizer: PolicyOptimizer,
    rollouts: list[Rollout],
    config: DistillConfig,
    temperature: float,
    totals: _Means,
) -> None:
    """The whole training step: the loss of a mini-batch, accumulated over micro-batches, and one optimiser step."""
    normalizer = _normalizer(rollouts, config.aggregation)
    for part in _microbatches(rollouts, config.tokens_per_microbatch):
        batch = _collate(policy, part)
        old_logp = _padded([r.old_logps for r in part], batch.completion_mask)
        outputs = policy_loss(
            logp=policy.completion_logps(batch, temperature),
            old_logp=old_logp,
            advantages=torch.tensor([r.advantage for r in part], device=policy.device),
            completion_mask=batch.completion_mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            template_mask=_template_mask(part, batch, old_logp, config),
            aggregation=config.aggregation,
            normalizer=normalizer,
        )
        outputs.loss.backward()
        totals.add(outputs, weight=float(batch.completion_mask.sum()))
    totals.add_step(optimizer.step())


def _template_mask(part: list[Rollout], batch: Batch, old_logp: Tensor, config: DistillConfig) -> Tensor | None:
    """Bare against templated, both of the policy as it was when it sampled; 1 on rows that were sampled bare."""
    if config.template_mask == "off" or config.context == "templated":
        return None
    mask = template_ratio_mask(
        old_logp,
        _padded([r.sampling_logps for r in part], batch.completion_mask),
        low=config.template_ratio_low,
        high=config.template_ratio_high,
        mode=config.template_mask,
    )
    templated = torch.tensor([r.templated for r in part], device=mask.device).unsqueeze(1)
    return torch.where(templated, mask, 1.0)


@torch.no_grad()
def _with_old_logps(policy: Policy, groups: list[Group], config: DistillConfig, temperature: float) -> list[Group]:
    """Old log-probs under the training context. Where the completion was sampled under that very context they
    are the engine's; only templated rollouts of a bare update need a forward pass."""
    needing = [r for group in groups for r in group if r.templated and config.context == "bare"]
    old: dict[int, tuple[float, ...]] = {}
    for part in _microbatches(needing, config.tokens_per_microbatch):
        logps = policy.completion_logps(_collate(policy, part), temperature).tolist()
        old |= {id(r): tuple(row[: len(r.completion_ids)]) for r, row in zip(part, logps, strict=True)}
    return [[replace(r, old_logps=old.get(id(r), r.sampling_logps)) for r in group] for group in groups]


def _microbatches(rollouts: Sequence[Rollout], tokens: int) -> Iterator[list[Rollout]]:
    """Rollouts of like length together, at most ``tokens`` padded tokens a part (a longer rollout goes alone)."""
    part: list[Rollout] = []
    for rollout in sorted(rollouts, key=lambda r: r.length):
        if part and (len(part) + 1) * rollout.length > tokens:
            yield part
            part = []
        part.append(rollout)
    if part:
        yield part


def _collate(policy: Policy, part: list[Rollout]) -> Batch:
    batch = Batch.collate([r.prompt_ids for r in part], [r.completion_ids for r in part], policy.pad_id)
    return batch.to(policy.device)


def _padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """[B, T] from rows of unequal length, zeros behind."""
    width = like.shape[1]
    return torch.tensor([[*row] + [0.0] * (width - len(row)) for row in rows], dtype=torch.float32, device=like.device)


def _normalizer(rollouts: list[Rollout], aggregation: Aggregation) -> float:
    """The denominator of the whole mini-batch: its completion tokens, or its sequences."""
    if aggregation == "token-mean":
        return float(sum(len(r.completion_ids) for r in rollouts))
    return float(len(rollouts))


class _Means:
    """Token-weighted means of the loss metrics over an update; the loss itself adds up within a step."""

    def __init__(self) -> None:
        self.steps = 0
        self._weight = 0.0
        self._sums: dict[str, float] = {}
        self._loss = 0.0
        self._norm = 0.0

    def add(self, outputs: LossOutputs, weight: float) -> None:
        loss = float(outputs.loss.detach())
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}; the weights were not changed")
        self._loss += loss
        self._weight += weight
        for name, value in outputs.metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value

    def add_step(self, gradient_norm: float) -> None:
        self.steps += 1
        self._norm += gradient_norm

    def means(self) -> dict[str, float]:
        if not self.steps:
            return {}
        return {name: total / self._weight for name, total in self._sums.items()} | {
            "loss": self._loss / self.steps,
            "gradient_norm": self._norm / self.steps,
        }
