"""Log-probs from before the update: what the three ratios of the loss are taken from.

``policy_ratio`` = new / old, both the trainer's under the gradient's prompt. ``template_ratio`` = bare / templated.
``engine_ratio`` = trainer / engine under one and the same prompt: how far the engine's arithmetic is from ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from p2o_core.batching import collate, microbatches
from p2o_core.config import DistillConfig
from p2o_core.groups import Group, Rollout
from p2o_core.policy import Policy


@torch.no_grad()
def with_old_logps(policy: Policy, groups: Sequence[Group], config: DistillConfig, temperature: float) -> list[Group]:
    """Every rollout with its old log-probs and, where asked for, its engine ratios.

    A rollout sampled under the gradient's own prompt needs a forward pass only to measure the engine; without that
    the engine's log-probs are the old ones. A templated rollout of a bare update needs one pass, under the bare
    prompt. That pass against the engine's log-probs is prompt shift *times* engine error, so its engine ratio is
    re-based on its own template ratio, which leaves 1; ``engine_ratio_templated: measured`` pays a second pass, under
    the template, and then both ratios are exact.
    """
    rollouts = [rollout for group in groups for rollout in group]
    correcting = config.engine_ratio != "off"
    shifted = [r for r in rollouts if r.templated and config.context == "bare"]
    moved = {id(r) for r in shifted}
    old = _logps(policy, [r for r in rollouts if correcting or id(r) in moved], config, temperature, sampling=False)
    measured = correcting and config.engine_ratio_templated == "measured"
    templated = _logps(policy, shifted if measured else [], config, temperature, sampling=True)

    def finished(rollout: Rollout) -> Rollout:
        logps = old.get(id(rollout), rollout.sampling_logps)
        reference = templated.get(id(rollout)) if id(rollout) in moved else logps
        if not correcting or reference is None:
            return replace(rollout, old_logps=logps)
        ratios = tuple(ours - engine for ours, engine in zip(reference, rollout.sampling_logps, strict=True))
        # with the trainer's own log-probs under the template, the template ratio is prompt shift alone
        return replace(
            rollout,
            old_logps=logps,
            engine_log_ratios=ratios,
            sampling_logps=reference if id(rollout) in moved else rollout.sampling_logps,
        )

    return [[finished(rollout) for rollout in group] for group in groups]


def _logps(
    policy: Policy, rollouts: Sequence[Rollout], config: DistillConfig, temperature: float, *, sampling: bool
) -> dict[int, tuple[float, ...]]:
    """Log-probs by rollout, under the prompt it was sampled from or under the gradient's."""
    logps: dict[int, tuple[float, ...]] = {}
    for part in microbatches(rollouts, config.tokens_per_microbatch):
        prompts = [r.sampling_prompt_ids if sampling else r.prompt_ids for r in part]
        rows = policy.completion_logps(collate(policy, part, prompts), temperature).tolist()
        logps |= {id(r): tuple(row[: len(r.completion_ids)]) for r, row in zip(part, rows, strict=True)}
    return logps
