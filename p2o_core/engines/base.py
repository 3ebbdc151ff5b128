"""The protocol of rollout engines, and the checks that all engines share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from p2o_core.config import PromptStyle
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion

if TYPE_CHECKING:
    from p2o_core.prompts import Chat


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
class LogprobRequest:
    """A completion that is there already, at least one token long, to be scored under a question and a template
    (blank: the bare prompt), or under ``prompt_ids``, a prompt that is there as tokens."""

    problem_id: str
    question: str
    template: str
    token_ids: tuple[int, ...]
    style: PromptStyle = "plain"
    prompt_ids: tuple[int, ...] = ()

    def prompt(self, chat: Chat) -> tuple[int, ...]:
        """What it is scored under, as tokens."""
        return self.prompt_ids or chat.encode_prompt(self.question, self.template, self.style)


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


def check_scored(
    requests: Sequence[LogprobRequest], logps: Sequence[tuple[float, ...]], decode: Callable[[Sequence[int]], str]
) -> list[tuple[float, ...]]:
    """Return the log-probs if all are finite. Raises PolicyNotFinite with the rows where they are not."""
    check_sampled(
        [
            Completion(r.problem_id, 0, r.template, decode(r.token_ids), r.token_ids, row, False)
            for r, row in zip(requests, logps, strict=True)
        ]
    )
    return list(logps)


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

    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """Score completions: the natural log-prob of each token of each request, in order. Nothing is generated.

        The distribution is the policy's own, at *temperature 1*, whatever was sampled at: the log-probs of a prompt,
        which is how vLLM scores, do not pass its sampler. Those of a completion sampled at temperature 1 are the
        sampled ones, up to rounding.

        Raises:
            PolicyNotFinite: as above.
        """
        ...


@runtime_checkable
class SpreadingEngine(RolloutEngine, Protocol):
    """An engine that works at several parts at once."""

    def generate_parts(
        self, parts: Sequence[Sequence[RolloutRequest]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Sample each part as ``generate`` samples it alone; yield its number and completions when it is finished,
        in whatever order.

        Raises:
            PolicyNotFinite: as above, for the first part, by number, where it is so.
        """
        ...


def shards(requests: Sequence[RolloutRequest], unit: int) -> Iterator[list[RolloutRequest]]:
    """The requests in order, parts of at most ``unit`` completions; a request with more samples is split.

    >>> [len(part) for part in shards([RolloutRequest("p", "q", "", tuple(range(5)), 0)], 2)]
    [1, 1, 1]
    """
    shard: list[RolloutRequest] = []
    room = unit
    for request in requests:
        samples = request.samples
        while samples:
            shard.append(replace(request, samples=samples[:room]))
            taken, samples = len(samples[:room]), samples[room:]
            room -= taken
            if room == 0:
                yield shard
                shard, room = [], unit
    if shard:
        yield shard
