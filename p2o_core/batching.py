"""Micro-batches: rollouts of like length side by side, under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from p2o_core.groups import Rollout
from p2o_core.policy import Batch, Policy


def microbatches(rollouts: Sequence[Rollout], tokens: int) -> Iterator[list[Rollout]]:
    """Rollouts of like length together, at most ``tokens`` padded tokens a part (a longer rollout goes alone)."""
    part: list[Rollout] = []
    for rollout in sorted(rollouts, key=lambda r: r.length):
        if part and (len(part) + 1) * rollout.length > tokens:
            yield part
            part = []
        part.append(rollout)
    if part:
        yield part


def collate(policy: Policy, part: Sequence[Rollout], prompts: Sequence[Sequence[int]] | None = None) -> Batch:
    """The rollouts under ``prompts`` (by default under the gradient's), on the policy's device."""
    contexts = prompts or [r.prompt_ids for r in part]
    return Batch.collate(contexts, [r.completion_ids for r in part], policy.chat.pad_id).to(policy.device)


def padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """[B, T] from rows of unequal length, zeros behind."""
    width = like.shape[1]
    return torch.tensor([[*row] + [0.0] * (width - len(row)) for row in rows], dtype=torch.float32, device=like.device)
