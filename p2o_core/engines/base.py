"""What every rollout engine promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from p2o_core.config import PromptStyle
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion


@dataclass(frozen=True)
class RolloutRequest:
    """``samples`` completions of one question under one template (blank: the bare prompt).

    ``stream`` seeds the request; sample s draws from the stream ``derive_seed(stream, problem_id, s)``.
    ``style`` is the prompt's shape around the question (:data:`p2o_core.prompts.STYLES`).
    """

    problem_id: str
    question: str
    template: str
    samples: tuple[int, ...]
    stream: int
    style: PromptStyle = "plain"

    def seed(self, sample: int) -> int:
        return derive_seed(self.stream, self.problem_id, sample)


@dataclass(frozen=True)
class Sampling:
    """The sampling distribution. Neither top-p nor top-k exists here on purpose: cut distributions bias every
    importance ratio taken from their log-probs. ``temperature`` 0 is greedy, for evaluation only."""

    temperature: float
    max_new_tokens: int


class PolicyNotFinite(FloatingPointError):
    """The policy's logits are NaN or infinite, so nothing can be sampled from it: every answer would be wrong and
    every problem hard. ``completions`` are the rows that show it, as far as they were written."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        ids = ", ".join(dict.fromkeys(completion.problem_id for completion in completions))
        super().__init__(f"log-probs of {len(completions)} sampled completions not finite ({ids[:200]})")
        self.completions = list(completions)


def check_sampled(completions: list[Completion]) -> list[Completion]:
    """The completions, all of whose log-probs are finite. Raises PolicyNotFinite with those that have others."""
    if broken := [c for c in completions if not all(map(math.isfinite, c.logps))]:
        raise PolicyNotFinite(broken)
    return completions


def point_mass(logps: Sequence[float]) -> tuple[float, ...]:
    """The log-probs of greedy decoding, 0 each; NaN where ``logps``, those of the distribution, are not finite."""
    return tuple(0.0 if math.isfinite(logp) else math.nan for logp in logps)


class RolloutEngine(Protocol):
    """Samples completions from the current policy."""

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """All completions, request by request in order, samples in the order of ``request.samples``.

        Log-probs are those of the distribution really sampled from: at the sampling temperature, under the
        templated prompt when there is a template. Greedy decoding samples from a point mass: log-prob 0.

        Raises:
            PolicyNotFinite: the policy gives NaN or infinity.
        """
        ...
