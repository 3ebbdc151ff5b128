"""The loss: PPO's clipped surrogate, the template-ratio mask, the engine's weights. Pure functions; metrics are
returned, never logged. The update calls :func:`p2o_loss`; the others are its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from p2o_core.config import Aggregation

if TYPE_CHECKING:
    from p2o_core.config import DistillConfig
    from p2o_core.microbatch import MicroBatch

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±20 before ``exp`` (as verl does), so that one wild token cannot make the loss infinite."""


@dataclass(frozen=True)
class LossOutputs:
    """A scalar loss to minimise and what there is to say about it."""

    loss: Tensor
    metrics: dict[str, float]


def p2o_loss(logp: Tensor, batch: MicroBatch, config: DistillConfig, denominator: float) -> LossOutputs:
    """The loss of a micro-batch as it is configured: the surrogate of :func:`policy_loss`, each token weighed by the
    template-ratio mask and by the engine ratio; or :func:`cross_entropy`.

    Args:
        logp: [B, T] log-probs under the policy being trained, at the gradient's prompt; carries the gradient.
        denominator: of the whole mini-batch, from :func:`loss_denominator`.
    """
    if config.loss == "sft":
        return cross_entropy(logp, batch.completion_mask, config.aggregation, denominator)
    template_mask = engine_weights = None
    if config.template_mask != "off" and config.context == "bare":
        mask = template_ratio_mask(
            batch.old_logp,
            batch.templated_logp,
            low=config.template_ratio_low,
            high=config.template_ratio_high,
            mode=config.template_mask,
        )
        template_mask = torch.where(batch.templated.unsqueeze(1), mask, 1.0)
    if config.engine_ratio != "off":
        engine_weights = engine_ratio_weights(
            batch.engine_log_ratio,
            batch.completion_mask,
            mode=config.engine_ratio,
        )
    return policy_loss(
        logp,
        batch.old_logp,
        batch.advantages,
        batch.completion_mask,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
        template_mask=template_mask,
        engine_weights=engine_weights,
        aggregation=config.aggregation,
        normalizer=denominator,
    )


def cross_entropy(logp: Tensor, completion_mask: Tensor, aggregation: Aggregation, normalizer: float) -> LossOutputs:
    """Supervised fine-tuning on completions that are right (rejection sampling fine-tuning, Yuan et al. 2023).

    Args:
        logp: [B, T] log-probs of the completion tokens at temperature 1; carries the gradient.
    """
    loss = aggregate(-logp, completion_mask, aggregation, normalizer)
    tokens = completion_mask.sum().clamp(min=1)
    return LossOutputs(loss, {"cross_entropy": float((-logp.detach().float() * completion_mask).sum() / tokens)})


def template_ratio_mask(
    logp_bare: Tensor,
    logp_templated: Tensor,
    *,
    low: float = 0.01,
    high: float = 10.0,
    mode: Literal["hard", "soft"] = "hard",
) -> Tensor:
    """Filter for tokens that the bare prompt and the template see too differently (P²O, context distillation).

    ``r = exp(logp_bare - logp_templated)`` for each token. ``hard``: 1 where ``low <= r <= high``, else 0.
    ``soft``: 1 inside, ``high / r`` above and ``low / r`` below, i.e. ``clamp(r, low, high) / r``; mind that
    the weight *exceeds* 1 below ``low``, exactly as the method states it.

    Args:
        logp_bare: [B, T] log-probs of the completion tokens under the bare prompt.
        logp_templated: [B, T] the same tokens under the prompt they were sampled from.

    Returns:
        [B, T] float weights without gradient; they multiply the per-token loss. ``r`` is a filter, not an
        importance weight: the policy ratio compares bare with bare and starts at 1.
    """
    if not 0 < low < high:
        raise ValueError(f"template ratio bounds must satisfy 0 < low < high, got low={low}, high={high}")
    log_ratio = (logp_bare - logp_templated).detach().float()
    clamped = log_ratio.clamp(math.log(low), math.log(high))
    if mode == "soft":
        return torch.exp(clamped - log_ratio)
    if mode == "hard":
        ratio = torch.exp(log_ratio)
        return ((ratio >= low) & (ratio <= high)).float()
    raise ValueError(f"mode must be 'hard' or 'soft', got {mode!r}")


def engine_ratio_weights(
    log_ratios: Tensor,
    completion_mask: Tensor,
    *,
    mode: Literal["truncated", "masked"] = "truncated",
    level: Literal["token", "sequence"] = "token",
    limit: float = 2.0,
) -> Tensor:
    """Importance weights for what engine and trainer compute differently (truncated importance sampling, Yao et al.
    2025, "Your efficient RL framework secretly brings you off-policy RL training"; masked: as IcePop).

    Args:
        log_ratios: [B, T] log(trainer / engine) under one and the same prompt; 0 where nothing was compared.
        completion_mask: [B, T].
        mode: ``truncated``: min(ratio, limit). ``masked``: the ratio within [1 / limit, limit], 0 outside.
        level: ``sequence`` takes one ratio a row, the product over its tokens.
        limit: greater than 1.

    Returns:
        [B, T] weights without gradient.
    """
    if limit <= 1:
        raise ValueError(f"limit must be greater than 1, got {limit}")
    logs = log_ratios.detach().float() * completion_mask
    if level == "sequence":
        logs = logs.sum(dim=1, keepdim=True).expand_as(logs)
    ratio = torch.exp(logs.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
    if mode == "truncated":
        return ratio.clamp(max=limit)
    if mode == "masked":
        return torch.where((ratio >= 1 / limit) & (ratio <= limit), ratio, 0.0)
    raise ValueError(f"mode must be 'truncated' or 'masked', got {mode!r}")


def loss_denominator(tokens: float, sequences: int, aggregation: Aggregation) -> float:
    """What a sum of per-token or per-sequence values is divided by: completion tokens (at least 1) for token-mean,
    sequences for the seq-mean kinds. Raises ValueError: no such aggregation."""
    if aggregation == "token-mean":
        return max(tokens, 1.0)
    if aggregation in ("seq-mean-token-sum", "seq-mean-token-mean"):
        return float(sequences)
    raise _no_aggregation(aggregation)


def aggregate(per_token: Tensor, completion_mask: Tensor, aggregation: Aggregation, normalizer: float | None) -> Tensor:
    """One number from [B, T] per-token values.

    ``normalizer`` replaces the batch's own :func:`loss_denominator` when the batch at hand is a part of a larger
    mini-batch, so that the parts' losses add up to the whole's. Raises ValueError: no such aggregation.
    """
    masked = per_token * completion_mask
    if aggregation in ("token-mean", "seq-mean-token-sum"):
        total = masked.sum()
    elif aggregation == "seq-mean-token-mean":
        total = (masked.sum(dim=1) / completion_mask.sum(dim=1).clamp(min=1)).sum()
    else:
        raise _no_aggregation(aggregation)
    return total / (normalizer or loss_denominator(float(completion_mask.sum()), len(completion_mask), aggregation))


def _no_aggregation(name: str) -> ValueError:
    return ValueError(f"aggregation must be one of {', '.join(get_args(Aggregation))}, got {name!r}")


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    completion_mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    template_mask: Tensor | None = None,
    engine_weights: Tensor | None = None,
    aggregation: Aggregation = "token-mean",
    normalizer: float | None = None,
) -> LossOutputs:
    """PPO's clipped surrogate with dual clip (arXiv 1912.09729), as GRPO and the official P²O code use it.

    Args:
        logp: [B, T] log-probs under the policy being trained, bare prompt; carries the gradient.
        old_logp: [B, T] the same at the start of the update.
        advantages: [B], one a sequence.
        completion_mask: [B, T], 1 where a completion token counts.
        clip_low: the policy ratio is clipped to [1 - clip_low, 1 + clip_high].
        clip_high: likewise.
        dual_clip: for negative advantages the per-token loss is at most ``dual_clip * |A|``; None for no bound.
        template_mask: [B, T] from :func:`template_ratio_mask`, or None. It multiplies the per-token loss;
            the denominator still counts every completion token.
        engine_weights: [B, T] from :func:`engine_ratio_weights`, or None; they multiply the per-token loss too.
        aggregation: see :func:`aggregate`.
        normalizer: see :func:`aggregate`.

    Returns:
        The loss and ``clip_fraction``, ``dual_clip_fraction``, ``approx_kl`` (k1, old against new),
        ``policy_ratio_mean``, ``template_masked_fraction`` and ``engine_weight_mean``, each over completion tokens.
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip must be greater than 1, got {dual_clip}")
    log_ratio = (logp - old_logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    policy_ratio = torch.exp(log_ratio)
    advantage = advantages.unsqueeze(1)
    unclipped = -advantage * policy_ratio
    clipped = -advantage * policy_ratio.clamp(1 - clip_low, 1 + clip_high)
    per_token = torch.maximum(unclipped, clipped)
    dual_clipped = torch.zeros_like(per_token, dtype=torch.bool)
    if dual_clip is not None:
        bound = -advantage * dual_clip
        dual_clipped = (advantage < 0) & (per_token > bound)
        per_token = torch.where(advantage < 0, torch.minimum(per_token, bound), per_token)
    if template_mask is not None:
        per_token = per_token * template_mask
    if engine_weights is not None:
        per_token = per_token * engine_weights

    def share(values: Tensor) -> float:
        return float((values.detach().float() * completion_mask).sum() / completion_mask.sum().clamp(min=1))

    return LossOutputs(
        loss=aggregate(per_token, completion_mask, aggregation, normalizer),
        metrics={
            "clip_fraction": share(clipped > unclipped),
            "dual_clip_fraction": share(dual_clipped),
            "approx_kl": share(-log_ratio),
            "policy_ratio_mean": share(policy_ratio),
            "template_masked_fraction": share(template_mask == 0) if template_mask is not None else 0.0,
            "engine_weight_mean": share(engine_weights) if engine_weights is not None else 1.0,
        },
    )
