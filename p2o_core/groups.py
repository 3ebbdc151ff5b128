"""Groups: the completions of one problem as the update sees them, with their advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from p2o_core.advantages import group_advantages


@dataclass(frozen=True)
class Rollout:
    """One completion as the update sees it.

    ``prompt_ids`` is the context the gradient is taken under: under context distillation the *bare* prompt, also
    when the completion was sampled under a template; ``sampling_prompt_ids`` is the context it was sampled under
    (empty: the same). ``sampling_logps`` are the engine's, under that context; ``old_logps`` those under
    ``prompt_ids`` before the first step. ``engine_log_ratios`` are log(trainer / engine), a token each, both under
    one and the same context; empty where nothing was compared (weight 1).

    >>> Rollout("p0", (1, 2), (3,), (-0.1,), reward=1.0, templated=False).old_logps
    ()
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    sampling_logps: tuple[float, ...]
    reward: float
    templated: bool
    sampling_prompt_ids: tuple[int, ...] = ()
    advantage: float = 0.0
    old_logps: tuple[float, ...] = ()
    engine_log_ratios: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        return max(len(self.prompt_ids), len(self.sampling_prompt_ids)) + len(self.completion_ids)


Group = list[Rollout]


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
