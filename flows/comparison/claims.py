"""Claims: what is measured against which goal, and the verdict in words. ``catalogue`` lists them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flows.comparison.runs import Evidence, Trial
from flows.comparison.statistics import (
    MIN_SEEDS,
    Interval,
    Sample,
    Statistic,
    difference,
    effect_size,
    paired_bootstrap,
)


@dataclass(frozen=True)
class Measured:
    """What a claim compares. Infinite in ``one``: it did not happen within the budget. Blank: no such problems."""

    one: Sample
    other: Sample
    note: str = ""
    """What the measurement chose, for the reader."""


@dataclass(frozen=True)
class Claim:
    """One claim. ``goal`` is a lower bound unless ``at_most``; shares and differences are fractions, not points."""

    name: str
    statement: str
    arms: tuple[str, ...]
    goal: float
    measured: Callable[[Evidence, list[Trial]], Measured]
    at_most: bool = False
    must_exclude: float | None = None
    """The interval must not hold this value, besides the value reaching the goal."""
    statistic: Statistic = difference
    in_points: bool = True
    """Shown times 100."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its number. ``effect`` is Cohen's d of the paired seeds; None where it has no meaning. ``budget``
    is where the runs were stopped, in tokens."""

    claim: Claim
    interval: Interval | None
    effect: float | None
    seeds: int
    """Pairs of runs, those of all bases together."""
    censored: int = 0
    """Seeds in which what is counted did not happen within the budget; they count as the whole budget."""
    note: str = ""
    budget: float = 0.0
    bases: int = 1

    @property
    def reached(self) -> bool:
        """The goal is met by the value, the interval excludes what it must, and there are seeds enough."""
        enough = self.seeds >= MIN_SEEDS and not self.censored
        if self.interval is None or not enough or not math.isfinite(self.interval.value):
            return False
        value, goal = self.interval.value, self.claim.goal
        met = value <= goal if self.claim.at_most else value >= goal
        return met and (self.claim.must_exclude is None or self.interval.excludes(self.claim.must_exclude))

    @property
    def statement(self) -> str:
        """The claim's, and what was chosen in measuring it."""
        return self.claim.statement + f" ({self.note})" * bool(self.note)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.interval is None and self.seeds:
            return "no data: these held-out problems have none out of distribution (tier `ood`)"
        if self.interval is None:
            return f"no data: {' and '.join(self.claim.arms)} have no finished seed in common"
        if self.seeds < MIN_SEEDS:
            return f"{self.seeds} of at least {MIN_SEEDS} seeds: not enough for a verdict"
        if self.censored:
            return f"not reached: in {self.censored} of {self.seeds} seeds not within the budget, counted as all of it"
        if self.reached:
            return "reached"
        bound = self.claim.must_exclude
        beyond = bound is not None and not self.interval.excludes(bound)
        return f"not reached: the interval holds {bound:g}" if beyond else "not reached"

    def to_json(self) -> dict[str, Any]:
        numbers = asdict(self.interval) if self.interval else {"value": None, "low": None, "high": None}
        finite = {name: number if number is None or math.isfinite(number) else None for name, number in numbers.items()}
        return {
            "value": finite["value"],
            "ci_low": finite["low"],
            "ci_high": finite["high"],
            "goal": self.claim.goal,
            "at_most": self.claim.at_most,
            "reached": self.reached,
            "seeds": self.seeds,
            "bases": self.bases,
            "budget": round(self.budget),
            "effect_size": self.effect if self.effect is not None and math.isfinite(self.effect) else None,
            "statement": self.statement,
            "verdict": self.verdict,
        }


def find(claim: Claim, evidence: Evidence) -> ClaimResult:
    """Measure one claim on the bases and seeds that all its arms have."""
    trials = evidence.trials(*claim.arms)
    if not trials:
        return ClaimResult(claim, None, None, 0, budget=evidence.budget)
    measured, bases = claim.measured(evidence, trials), len({trial.base for trial in trials})
    if not measured.one or not measured.other:
        return ClaimResult(claim, None, None, len(trials), budget=evidence.budget, bases=bases)
    censored = sum(int(np.isinf(part).sum()) for part in measured.one)
    one = [np.where(np.isinf(part), evidence.budget, part) for part in measured.one]
    return ClaimResult(
        claim,
        paired_bootstrap(one, measured.other, claim.statistic),
        effect_size(one, measured.other) if claim.statistic is difference else None,
        len(trials),
        censored,
        measured.note,
        evidence.budget,
        bases,
    )


def findings(claims: Sequence[Claim], evidence: Evidence) -> list[ClaimResult]:
    """All of them, in order, at equal generated tokens."""
    return [find(claim, evidence) for claim in claims]


def findings_with_prompts(claims: Sequence[Claim], evidence: Evidence) -> list[ClaimResult]:
    """The same at equal tokens with prompts included: for each claim the most that all runs of its arms came to."""
    return [find(claim, evidence.with_prompts(*claim.arms)) for claim in claims]
