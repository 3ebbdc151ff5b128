"""What every rollout engine promises."""

from __future__ import annotations

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


class RolloutEngine(Protocol):
    """Samples completions from the current policy."""

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """All completions, request by request in order, samples in the order of ``request.samples``.

        Log-probs are those of the distribution really sampled from: at the sampling temperature, under the
        templated prompt when there is a template. Greedy decoding samples from a point mass: log-prob 0.
        """
        ...
