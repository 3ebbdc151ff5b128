"""The policy update: groups with signal in, optimiser steps out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from p2o_core.batching import collate, microbatches, padded
from p2o_core.checkpoints import UpdateCheckpoints
from p2o_core.config import DistillConfig
from p2o_core.finite import check_parameters, check_start
from p2o_core.groups import Group, Rollout, with_advantages
from p2o_core.losses import Aggregation, LossOutputs, engine_ratio_weights, policy_loss, template_ratio_mask
from p2o_core.numerics import NotFinite, check_finite
from p2o_core.old_logps import with_old_logps
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Batch, Policy

RATIO_EDGES = np.linspace(-5.0, 2.0, 29)
"""Edges of the template-ratio histogram, log10: quarters of a decade."""


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


def update_policy(
    policy: Policy,
    optimizer: PolicyOptimizer,
    groups: Sequence[Group],
    config: DistillConfig,
    *,
    temperature: float,
    seed: int,
    checkpoints: UpdateCheckpoints | None = None,
    on_step: Callable[[int, int], None] = lambda step, planned: None,
) -> UpdateReport:
    """One pass over the groups in mini-batches, an optimiser step each; goes on where ``checkpoints`` end.

    Raises:
        NotFinite: log-probs, ratios, loss or gradient are not finite; the weights are those before that step. Or the
            weights themselves are not, at the start or after a step.
        RuntimeError: fewer steps were done than planned.
    """
    checkpoints = checkpoints or UpdateCheckpoints()
    check_start(dict(policy.model.named_parameters()), groups)
    torch.manual_seed(seed)  # LoRA dropout, if any
    signal = with_advantages(groups, normalize_std=config.normalize_std)
    random.Random(seed).shuffle(signal)
    size = config.groups_per_minibatch
    planned = -(-len(signal) // size)
    with_old = checkpoints.old_logps(lambda: with_old_logps(policy, signal, config, temperature))
    started_at = optimizer.steps_done
    done, progress = checkpoints.restore(policy, optimizer)
    totals = _Means.of(progress)
    for step in range(done, planned):
        rollouts = [rollout for group in with_old[step * size : (step + 1) * size] for rollout in group]
        _train_step(policy, optimizer, rollouts, config, temperature, totals)
        checkpoints.save(step + 1, planned, policy, optimizer, totals.state())
        on_step(step + 1, planned)
    if not totals.steps == planned == optimizer.steps_done - started_at:
        raise RuntimeError(
            f"{planned} optimiser steps were planned, {totals.steps} were done and the optimiser counts "
            f"{optimizer.steps_done - started_at}. Mend: delete data/units and start again."
        )
    return UpdateReport(
        status="updated" if planned else "no_signal",
        groups=len(groups),
        groups_with_signal=len(signal),
        rollouts_trained=sum(map(len, signal)),
        planned_steps=planned,
        steps=totals.steps,
        metrics=totals.means() | engine_metrics([r for group in with_old for r in group], config),
        template_ratios=template_ratio_histogram(rollout for group in with_old for rollout in group),
    )


def engine_metrics(rollouts: Sequence[Rollout], config: DistillConfig) -> dict[str, float]:
    """How far trainer and engine are apart on the rows that were compared, over their tokens: mean and largest
    |log ratio|, and k3, the low-variance estimate of KL(engine || trainer) (http://joschu.net/blog/kl-approx.html)."""
    logs = np.array([ratio for rollout in rollouts for ratio in rollout.engine_log_ratios])
    if config.engine_ratio == "off" or not logs.size:
        return {}
    return {
        "engine_log_ratio_mean": float(np.abs(logs).mean()),
        "engine_log_ratio_max": float(np.abs(logs).max()),
        "engine_kl": float((np.exp(logs) - 1 - logs).mean()),
    }


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
    for part in microbatches(rollouts, config.tokens_per_microbatch):
        batch = collate(policy, part)
        old_logp = padded([r.old_logps for r in part], batch.completion_mask)
        logp = policy.completion_logps(batch, temperature)
        _check(part, batch, logp, old_logp)
        outputs = policy_loss(
            logp=logp,
            old_logp=old_logp,
            advantages=torch.tensor([r.advantage for r in part], device=policy.device),
            completion_mask=batch.completion_mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            template_mask=_template_mask(part, batch, old_logp, config),
            engine_weights=_engine_weights(part, batch, config),
            aggregation=config.aggregation,
            normalizer=normalizer,
        )
        if not torch.isfinite(outputs.loss):
            raise NotFinite("loss", part)
        outputs.loss.backward()
        totals.add(outputs, weight=float(batch.completion_mask.sum()))
    try:
        totals.add_step(optimizer.step())
    except FloatingPointError as error:
        raise NotFinite("gradient", rollouts) from error
    check_parameters(optimizer.parameters, rollouts)


def _check(part: list[Rollout], batch: Batch, logp: Tensor, old_logp: Tensor) -> None:
    """Everything the loss is computed from, before anything is."""
    check_finite("log-probs", logp, part)
    check_finite("old log-probs", old_logp, part)
    check_finite("sampling log-probs", padded([r.sampling_logps for r in part], batch.completion_mask), part)
    check_finite("engine ratios", padded([r.engine_log_ratios for r in part], batch.completion_mask), part)


def _template_mask(part: list[Rollout], batch: Batch, old_logp: Tensor, config: DistillConfig) -> Tensor | None:
    """Bare against templated, both of the policy as it was when it sampled; 1 on rows that were sampled bare."""
    if config.template_mask == "off" or config.context == "templated":
        return None
    mask = template_ratio_mask(
        old_logp,
        padded([r.sampling_logps for r in part], batch.completion_mask),
        low=config.template_ratio_low,
        high=config.template_ratio_high,
        mode=config.template_mask,
    )
    templated = torch.tensor([r.templated for r in part], device=mask.device).unsqueeze(1)
    return torch.where(templated, mask, 1.0)


def _normalizer(rollouts: list[Rollout], aggregation: Aggregation) -> float:
    """The denominator of the whole mini-batch: its completion tokens, or its sequences."""
    if aggregation == "token-mean":
        return float(sum(len(r.completion_ids) for r in rollouts))
    return float(len(rollouts))


def _engine_weights(part: list[Rollout], batch: Batch, config: DistillConfig) -> Tensor | None:
    """1 on rows that were not compared: their empty ratios are zeros in the log."""
    if config.engine_ratio == "off":
        return None
    return engine_ratio_weights(
        padded([r.engine_log_ratios for r in part], batch.completion_mask),
        batch.completion_mask,
        mode=config.engine_ratio,
        level=config.engine_ratio_level,
        limit=config.engine_ratio_limit,
    )


class _Means:
    """Token-weighted means of the loss metrics over an update; the loss itself adds up within a step."""

    def __init__(self) -> None:
        self.steps = 0
        self._weight = 0.0
        self._sums: dict[str, float] = {}
        self._loss = 0.0
        self._norm = 0.0
        self._largest_norm = 0.0

    @classmethod
    def of(cls, state: dict[str, Any] | None) -> _Means:
        """Go on from :meth:`state`."""
        means = cls()
        means.__dict__.update(state or {})
        return means

    def state(self) -> dict[str, Any]:
        """For JSON, which keeps every bit of a float."""
        return dict(self.__dict__)

    def add(self, outputs: LossOutputs, weight: float) -> None:
        self._loss += float(outputs.loss.detach())
        self._weight += weight
        for name, value in outputs.metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value

    def add_step(self, gradient_norm: float) -> None:
        self.steps += 1
        self._norm += gradient_norm
        self._largest_norm = max(self._largest_norm, gradient_norm)

    def means(self) -> dict[str, float]:
        if not self.steps:
            return {}
        return {name: total / self._weight for name, total in self._sums.items()} | {
            "loss": self._loss / self.steps,
            "gradient_norm": self._norm / self.steps,
            "gradient_norm_max": self._largest_norm,
        }
