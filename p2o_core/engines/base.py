"""The protocol of rollout engines, and the checks that all engines share."""

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
    """The sampling distribution. It has no top-p and no top-k on purpose: cutting a distribution biases every
    importance ratio computed from its log-probs. ``temperature`` 0 is greedy, for evaluation only."""

    temperature: float
    max_new_tokens: int


class PolicyNotFinite(FloatingPointError):
    """The policy's logits are NaN or infinite, so no engine can sample from it: every answer would be wrong and every
    problem hard. ``completions`` are the affected rows, up to the token that failed."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        ids = ", ".join(dict.fromkeys(completion.problem_id for completion in completions))
        super().__init__(f"log-probs of {len(completions)} sampled completions not finite ({ids[:200]})")
        self.completions = list(completions)


def check_sampled(completions: list[Completion]) -> list[Completion]:
    """Return the completions if all log-probs are finite. Raises PolicyNotFinite with the rows where they are not."""
    if broken := [c for c in completions if not all(map(math.isfinite, c.logps))]:
        raise PolicyNotFinite(broken)
    return completions


def point_mass(logps: Sequence[float]) -> tuple[float, ...]:
    """Return greedy decoding's log-probs: 0 for each token, NaN where the distribution's ``logps`` are not finite."""
    return tuple(0.0 if math.isfinite(logp) else math.nan for logp in logps)


class RolloutEngine(Protocol):
    """Samples completions from the current policy."""

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """Sample all requests.

        - Order: request by request, and within a request in the order of ``request.samples``.
        - Log-probs: of the distribution that was sampled from, i.e. at the sampling temperature and under the templated
          prompt when there is a template. Greedy decoding samples from a point mass: log-prob 0.
        - Determinism: the seeds in the requests decide what is sampled; earlier calls do not.

        Raises:
            PolicyNotFinite: the policy gives NaN or infinity. An engine raises it and never returns such rows.
        """
        ...
