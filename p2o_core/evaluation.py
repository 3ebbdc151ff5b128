"""Measures a policy: avg@k, pass@k and maj@k of its completions, and whether it kept its skills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from p2o_core.config import EvaluateConfig, RolloutConfig
from p2o_core.demonstrations import without_own
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.mining import rewards_by_problem
from p2o_core.rollout import gold_answers, judge
from p2o_core.schemas import read_record
from p2o_core.types import AnswerVerifier, Completion, Judged, Problem

Value = TypeVar("Value")


def avg_at_k(rewards: Mapping[str, Sequence[float]]) -> float:
    """Mean over problems of the mean reward of their k samples; the k may differ between problems."""
    if not rewards:
        raise ValueError("avg@k of no problems")
    return sum(sum(samples) / len(samples) for samples in rewards.values()) / len(rewards)


def pass_at_k(rewards: Mapping[str, Sequence[float]], k: int) -> float:
    """Unbiased pass@k from n >= k samples a problem: ``1 - C(n - c, k) / C(n, k)`` (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: a problem has fewer than k samples.
    """
    if not rewards:
        raise ValueError("pass@k of no problems")
    total = 0.0
    for problem_id, samples in rewards.items():
        n, correct = len(samples), sum(reward == 1 for reward in samples)
        if n < k:
            raise ValueError(f"pass@{k} needs at least {k} samples a problem; {problem_id!r} has {n}")
        total += 1.0 - comb(n - correct, k) / comb(n, k)
    return total / len(rewards)


def maj_at_k(answers: Mapping[str, Sequence[tuple[str, float]]]) -> float:
    """Share of problems whose most frequent answer is right (self-consistency, arXiv 2203.11171).

    Args:
        answers: (the answer that was read, its reward) of each sample. Right answers are one answer whatever their
            form, wrong ones count by their text; samples without an answer do not vote. Ties are shared: with two
            answers equally frequent, one of them right, the problem counts half.
    """
    if not answers:
        raise ValueError("maj@k of no problems")
    total = 0.0
    for samples in answers.values():
        votes = Counter(("right", "") if reward == 1 else ("wrong", text) for text, reward in samples if reward or text)
        if votes:
            most = max(votes.values())
            leaders = [answer for answer, count in votes.items() if count == most]
            total += ("right", "") in leaders and 1 / len(leaders)
    return total / len(answers)


@dataclass(frozen=True)
class Lengths:
    """Tokens a completion, mean and 95th percentile, and the share that was cut off."""

    mean: float
    p95: float
    truncated: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What k completions a problem come to, by difficulty. ``accuracy`` is avg@k; ``pass_at`` has k as its keys, then
    the difficulty; ``mean_tokens`` and ``truncated`` (a share) are over all completions."""

    accuracy: Mapping[str, float]
    pass_at: Mapping[str, Mapping[str, float]]
    maj_at: Mapping[str, float]
    lengths: Mapping[str, Lengths]
    mean_tokens: float
    truncated: float

    @property
    def mean_accuracy(self) -> float:
        """Unweighted, over the difficulties."""
        return sum(self.accuracy.values()) / len(self.accuracy)


@dataclass(frozen=True, kw_only=True)
class Measurement(Scores):
    """An iteration's evaluation: metrics.json. ``best_template`` is the accuracy under the last search's best template,
    where that was measured."""

    iteration: int
    best_template: Annotated[Mapping[str, float] | None, Field(exclude_if=lambda value: value is None)] = None
    status: Literal["measured"] = "measured"


@dataclass(frozen=True)
class NotDue:
    """metrics.json of an iteration between two evaluations."""

    iteration: int
    status: Literal["not_due"] = "not_due"


Evaluation = Annotated[Measurement | NotDue, Field(discriminator="status")]


def read_evaluation(path: Path) -> Measurement | None:
    """A metrics.json; None where the iteration was not due. Raises BadInput."""
    found: Measurement | NotDue = read_record(path, Evaluation)
    return found if isinstance(found, Measurement) else None


@dataclass(frozen=True)
class Measured:
    """k completions a problem, their verdicts, and what they come to."""

    completions: list[Completion]
    judged: list[Judged]
    scores: Scores


def measure(
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    problems: Sequence[Problem],
    config: EvaluateConfig,
    seed: int,
    template: str = "",
) -> Measured:
    """Answer every problem ``config.samples`` times under ``template``: avg@k, pass@k, maj@k and lengths."""
    samples = tuple(range(config.samples))
    completions = engine.generate(
        [RolloutRequest(p.id, p.question, without_own(template, p), samples, seed, config.prompt) for p in problems],
        Sampling(config.temperature, config.max_new_tokens),
    )
    judged = judge(verifier, completions, gold_answers(problems))
    tiers, rewards = _ids_by_difficulty(problems), rewards_by_problem(judged)
    read: dict[str, list[tuple[str, float]]] = {}
    for row in judged:
        read.setdefault(row.problem_id, []).append((row.extracted, row.reward))
    scores = Scores(
        accuracy={tier: avg_at_k(_of(rewards, ids)) for tier, ids in tiers.items()},
        pass_at={str(k): {tier: pass_at_k(_of(rewards, ids), k) for tier, ids in tiers.items()} for k in config.pass_k},
        maj_at={tier: maj_at_k(_of(read, ids)) for tier, ids in tiers.items()},
        lengths={tier: _lengths(completions, set(ids)) for tier, ids in tiers.items()},
        mean_tokens=sum(len(c.token_ids) for c in completions) / len(completions),
        truncated=sum(c.truncated for c in completions) / len(completions),
    )
    return Measured(completions, judged, scores)


def _ids_by_difficulty(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Map each difficulty (a benchmark's name, when benchmarks are evaluated) to its problem ids."""
    tiers: dict[str, list[str]] = {tier: [] for tier in sorted({p.difficulty for p in problems})}
    for problem in problems:
        tiers[problem.difficulty].append(problem.id)
    return tiers


def _of(values: Mapping[str, Value], ids: Sequence[str]) -> dict[str, Value]:
    return {id_: values[id_] for id_ in ids}


def _lengths(completions: Sequence[Completion], ids: set[str]) -> Lengths:
    lengths = sorted(len(c.token_ids) for c in completions if c.problem_id in ids)
    cut = sum(c.truncated for c in completions if c.problem_id in ids)
    return Lengths(
        mean=sum(lengths) / len(lengths),
        p95=float(lengths[int(0.95 * (len(lengths) - 1))]),
        truncated=cut / len(lengths),
    )


@dataclass(frozen=True)
class Skills:
    """Accuracy on the same problems before and after an update. Measuring ``after`` took ``tokens`` generated
    tokens."""

    problems: int
    before: float
    after: float
    tokens: int

    def lost(self, margin: float) -> bool:
        """Return whether the update cost more than ``margin`` of accuracy."""
        return self.before - self.after > margin


def solved_before(rewards: Mapping[str, Sequence[float]], limit: int) -> dict[str, float]:
    """Return at most ``limit`` problems that the first half of the rollouts mostly solves, each with the accuracy of
    the *second* half. If the same rollouts chose and measured, accuracy would be too high (the winner's curse), and
    every update would seem to cost skills.

    >>> solved_before({"a": [1, 1, 1, 0], "b": [0, 0, 1, 1], "c": [1, 1, 1, 1]}, limit=2)
    {'a': 0.5, 'c': 1.0}
    """
    halves = {id_: (values[: len(values) // 2], values[len(values) // 2 :]) for id_, values in rewards.items()}
    solved = {
        id_: sum(rest) / len(rest) for id_, (first, rest) in halves.items() if first and 2 * sum(first) >= len(first)
    }
    return dict(list(solved.items())[:limit])


def probe_skills(
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    problems: Mapping[str, Problem],
    rewards: Mapping[str, Sequence[float]],
    config: RolloutConfig,
    limit: int,
    seed: int,
) -> Skills | None:
    """Roll out at most ``limit`` formerly solved problems again, with as many samples as the second half of their
    rollouts had. Return None when nothing was solved or ``limit`` is 0.

    Args:
        engine: samples from the policy after the update.
        problems: by id.
        rewards: of the bare rollouts before the update, by problem id.
    """
    before = solved_before(rewards, limit)
    if not before:
        return None
    samples = tuple(range(config.samples - config.samples // 2))
    asked = [problems[id_] for id_ in before]
    completions = engine.generate(
        [RolloutRequest(p.id, p.question, "", samples, seed, config.prompt) for p in asked],
        Sampling(config.temperature, config.max_new_tokens),
    )
    after = [row.reward for row in judge(verifier, completions, gold_answers(asked))]
    tokens = sum(len(completion.token_ids) for completion in completions)
    return Skills(len(before), sum(before.values()) / len(before), sum(after) / len(after), tokens)
