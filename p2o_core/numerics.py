"""Numbers that end an update before it touches the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from p2o_core.groups import Rollout


class NotFinite(FloatingPointError):
    """NaN or infinity where the update computes. ``rollouts`` are the rows it came from, for inspection."""

    def __init__(self, what: str, rollouts: Sequence[Rollout]) -> None:
        ids = ", ".join(dict.fromkeys(rollout.problem_id for rollout in rollouts))
        super().__init__(f"{what} of {len(rollouts)} rollouts not finite ({ids[:200]}); the weights were not changed")
        self.what = what
        self.rollouts = list(rollouts)


def check_finite(what: str, values: Tensor, rollouts: Sequence[Rollout]) -> None:
    """Every row of ``values`` [B, T] finite; ``rollouts`` are its B rows.

    Raises:
        NotFinite: naming the rows that are not.
    """
    finite = torch.isfinite(values.detach()).all(dim=1).tolist()
    if not all(finite):
        raise NotFinite(what, [rollout for rollout, fine in zip(rollouts, finite, strict=True) if not fine])
