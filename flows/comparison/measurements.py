"""What claims measure, from the runs of their arms: each function gives one paired sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from flows.comparison.claims import Measured
from flows.comparison.runs import GENERATED, WITH_PROMPTS, Evidence, Measure, Run, Trial, is_measured
from flows.comparison.statistics import overall_mean

Measurement = Callable[[Evidence, list[Trial]], Measured]
COLLAPSED = 0.5
"""A policy that keeps less than this share of its bare accuracy from before training, all tiers alike, collapsed."""


def accuracy(one: str, other: str, tier: str | None = None) -> Measurement:
    """Bare accuracy of both arms on a tier, by default on the hard problems, or all where there is no such tier."""

    def measured(evidence: Evidence, trials: list[Trial]) -> Measured:
        asked = tier or evidence.focus()
        return Measured(evidence.rewards(one, trials, asked), evidence.rewards(other, trials, asked))

    return measured


def over_the_best(one: str, others: tuple[str, ...]) -> Measurement:
    """Bare accuracy on the hard problems, over the arm that has the highest mean of all bases and seeds together."""

    def measured(evidence: Evidence, trials: list[Trial]) -> Measured:
        rewards = {other: evidence.rewards(other, trials, evidence.focus()) for other in others}
        best = max(others, key=lambda other: overall_mean(rewards[other]))
        return Measured(evidence.rewards(one, trials, evidence.focus()), rewards[best], f"the best is {best}")

    return measured


def gains(one: str, other: str) -> Measurement:
    """Reward on the hard problems after training less reward before it."""

    def measured(evidence: Evidence, trials: list[Trial]) -> Measured:
        def gain(arm: str) -> list[np.ndarray]:
            after = evidence.rewards(arm, trials, evidence.focus())
            before = evidence.rewards(arm, trials, evidence.focus(), before=True)
            return [a - b for a, b in zip(after, before, strict=True)]

        return Measured(gain(one), gain(other))

    return measured


def all_fail(one: str, other: str) -> Measurement:
    """Share of groups whose bare rollouts all fail, in the last iteration within the budget."""

    def share(run: Run) -> float:
        return run.rows[-1].get("train/all_fail", math.nan)

    return lambda evidence, trials: Measured(
        evidence.numbers(one, trials, share), evidence.numbers(other, trials, share)
    )


def search_share(arm: str) -> Measurement:
    """Tokens of the search, reflections of the policy included, and all tokens."""

    def measured(evidence: Evidence, trials: list[Trial]) -> Measured:
        return Measured(
            evidence.numbers(arm, trials, lambda run: search_tokens(run, evidence.measure)),
            evidence.numbers(arm, trials, lambda run: max(1, run.rows[-1][evidence.measure])),
        )

    return measured


def search_tokens(run: Run, measure: Measure = GENERATED) -> float:
    """Within the budget."""
    names = ("tokens/gepa", "prompt_tokens/gepa") if measure == WITH_PROMPTS else ("tokens/gepa",)
    return sum(row.get(name, 0) for row in run.rows for name in names)


def collapsed(arm: str) -> Measurement:
    """1 for each run whose last evaluation shows a collapse, beside 0."""

    def is_collapsed(run: Run) -> float:
        measured = [row for row in run.rows if is_measured(row)]
        return float(overall(measured[-1]) < COLLAPSED * overall(measured[0]))

    return lambda evidence, trials: Measured(
        evidence.numbers(arm, trials, is_collapsed), evidence.numbers(arm, trials, lambda run: 0.0)
    )


def tokens_to_best(one: str, other: str) -> Measurement:
    """Tokens until ``one`` reaches the best held-out accuracy of ``other``, and until ``other`` first reached it."""

    def measured(evidence: Evidence, trials: list[Trial]) -> Measured:
        bases = dict(zip(trials, evidence.of(other, trials), strict=True))

        def mine(run: Run) -> float:
            return first(run, best(bases[Trial(run.arm.base, run.arm.seed)]), evidence.measure)

        def theirs(run: Run) -> float:
            return first(run, best(run), evidence.measure)

        return Measured(evidence.numbers(one, trials, mine), evidence.numbers(other, trials, theirs))

    return measured


def best(run: Run) -> float:
    """The highest accuracy of an evaluation after training began."""
    return max((overall(row) for row in run.rows[1:] if is_measured(row)), default=math.inf)


def first(run: Run, accuracy: float, measure: Measure = GENERATED) -> float:
    """Tokens at the first evaluation that shows this accuracy; ``inf`` when none does within the budget."""
    measured = (row for row in run.rows[1:] if is_measured(row))
    return next((float(row[measure]) for row in measured if overall(row) >= accuracy), math.inf)


def overall(row: dict[str, Any]) -> float:
    """Mean of the tiers' bare held-out accuracies: hard alone would be 0 for an arm that never learns it."""
    tiers = [value for name, value in row.items() if name.startswith("accuracy/")]
    return sum(tiers) / len(tiers)


def share_lost(gain: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The statistic "how much of it is gone"."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - other / gain


def ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The statistic "how many times"."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return one / other
