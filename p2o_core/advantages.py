"""Group-relative advantages."""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, groups: Tensor, *, normalize_std: bool = True, eps: float = 1e-6) -> Tensor:
    """Advantage of each rollout within its group: ``(r - mean) / (std + eps)``.

    Args:
        rewards: [N] floats, one a rollout.
        groups: [N] integers; rollouts of one problem share a number.
        normalize_std: divide by the unbiased standard deviation (GRPO, arXiv 2402.03300 eq. 3, as in verl);
            without the division this is Dr.GRPO (arXiv 2503.20783).
        eps: added to the standard deviation.

    Returns:
        [N] float32. A group whose rewards are all equal (a single rollout included) gets exactly 0. Without this rule
        its mean may differ from its members in the last bit, and 1e-8 / eps would be a gradient out of nothing.

    Raises:
        ValueError: shapes differ, or a reward is NaN or infinite.
    """
    if rewards.ndim != 1 or rewards.shape != groups.shape:
        raise ValueError(f"rewards and groups must both be [N], got {tuple(rewards.shape)} and {tuple(groups.shape)}")
    if not torch.isfinite(rewards).all():
        raise ValueError("rewards hold NaN or infinity: verify the answers again before the update")
    rewards = rewards.to(torch.float32)
    advantages = torch.zeros_like(rewards)
    for group in groups.unique():
        members = groups == group
        values = rewards[members]
        if bool((values == values[0]).all()):
            continue
        centred = values - values.mean()
        advantages[members] = centred / (values.std(unbiased=True) + eps) if normalize_std else centred
    return advantages
