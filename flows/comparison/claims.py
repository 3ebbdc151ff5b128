"""The claims V1–V5 and S9: what is measured, how, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from flows.comparison.runs import Evidence, Run, is_measured
from flows.comparison.statistics import MIN_SEEDS, Interval, Statistic, difference, effect_size, paired_bootstrap

METHOD = "p2o"
BASELINE = "grpo"


@dataclass(frozen=True)
class Claim:
    """One claim. ``goal`` is a lower bound unless ``at_most``; shares and differences are fractions, not points."""

    name: str
    statement: str
    arms: tuple[str, str]
    goal: float
    at_most: bool
    must_exclude: float | None
    """The interval must not hold this value, besides the value reaching the goal."""
    measured: Callable[[Evidence, list[int]], tuple[np.ndarray, np.ndarray]]
    statistic: Statistic
    in_points: bool = True
    """Shown times 100."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its number. ``effect`` is Cohen's d of the paired seeds; None where it has no meaning."""

    claim: Claim
    interval: Interval | None
    effect: float | None
    seeds: int
    censored: int = 0
    """Seeds in which what is counted did not happen within the budget; they count as the whole budget."""

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
            "effect_size": self.effect if self.effect is not None and math.isfinite(self.effect) else None,
            "statement": self.claim.statement,
            "verdict": self.verdict,
        }


def _on_hard(one: str, other: str) -> Callable[[Evidence, list[int]], tuple[np.ndarray, np.ndarray]]:
    return lambda evidence, seeds: (
        evidence.rewards(one, seeds, evidence.focus()),
        evidence.rewards(other, seeds, evidence.focus()),
    )


def _out_of_distribution(evidence: Evidence, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return evidence.rewards(METHOD, seeds, "ood"), evidence.rewards(BASELINE, seeds, "ood")


def _gains(evidence: Evidence, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """[S, P] of P²O and of P²O without context distillation: reward after less reward before."""

    def gain(arm: str) -> np.ndarray:
        return evidence.rewards(arm, seeds, evidence.focus()) - evidence.rewards(
            arm, seeds, evidence.focus(), before=True
        )

    return gain(METHOD), gain("p2o-no-distillation")


def _all_fail(evidence: Evidence, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """[S, 1]: share of groups whose bare rollouts all fail, in the last iteration within the budget."""

    def shares(arm: str) -> np.ndarray:
        return np.array([[run.rows[-1].get("train/all_fail", math.nan)] for run in evidence.of(arm, seeds)])

    return shares(METHOD), shares(BASELINE)


def _tokens_to_best(evidence: Evidence, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """[S, 1]: generated tokens until P²O reaches GRPO's best held-out accuracy, and until GRPO first reached it."""
    pairs = [
        tokens_to_best(run, base)
        for run, base in zip(evidence.of(METHOD, seeds), evidence.of(BASELINE, seeds), strict=True)
    ]
    return np.array([[mine] for mine, _ in pairs]), np.array([[theirs] for _, theirs in pairs])


def tokens_to_best(run: Run, base: Run) -> tuple[float, float]:
    """For one seed. ``inf`` when ``run`` never gets there within the budget."""
    best = max((_overall(row) for row in base.rows[1:] if is_measured(row)), default=math.inf)
    return _first(run, best), _first(base, best)


def _first(run: Run, accuracy: float) -> float:
    measured = (row for row in run.rows[1:] if is_measured(row))
    return next((float(row["tokens/cumulative"]) for row in measured if _overall(row) >= accuracy), math.inf)


def _overall(row: dict[str, Any]) -> float:
    """Mean of the tiers' bare held-out accuracies: hard alone would be 0 for an arm that never learns it."""
    tiers = [value for name, value in row.items() if name.startswith("accuracy/")]
    return sum(tiers) / len(tiers)


def _share_lost(gain: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - other / gain


def _ratio(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return one / other


CLAIMS = (
    Claim(
        "V1",
        "P²O over GRPO on hard problems, bare accuracy at equal tokens",
        (METHOD, BASELINE),
        0.20,
        False,
        0.0,
        _on_hard(METHOD, BASELINE),
        difference,
    ),
    Claim(
        "V2",
        "P²O over GRPO with doubled rollouts on hard problems",
        (METHOD, "grpo-2x"),
        0.15,
        False,
        0.0,
        _on_hard(METHOD, "grpo-2x"),
        difference,
    ),
    Claim(
        "V3",
        "P²O over GRPO out of distribution",
        (METHOD, BASELINE),
        0.10,
        False,
        0.0,
        _out_of_distribution,
        difference,
    ),
    Claim(
        "V4",
        "share of P²O's gain on hard problems that is lost without context distillation",
        (METHOD, "p2o-no-distillation"),
        0.80,
        False,
        None,
        _gains,
        _share_lost,
    ),
    Claim(
        "V5",
        "P²O's share of all-fail groups over GRPO's, at the end of the budget",
        (METHOD, BASELINE),
        1 / 3,
        True,
        None,
        _all_fail,
        _ratio,
        in_points=False,
    ),
    Claim(
        "S9",
        "tokens P²O needs to reach GRPO's best held-out accuracy over the tokens GRPO needed",
        (METHOD, BASELINE),
        0.5,
        True,
        None,
        _tokens_to_best,
        _ratio,
        in_points=False,
    ),
)


def claims(evidence: Evidence) -> list[Claim]:
    """All claims; without a tier ``hard`` they are about all held-out problems, and say so."""
    if evidence.focus() is not None:
        return list(CLAIMS)
    return [replace(c, statement=c.statement.replace("hard problems", "held-out problems")) for c in CLAIMS]


def find(claim: Claim, evidence: Evidence) -> ClaimResult:
    """Measure one claim on the seeds that both its arms have."""
    seeds = evidence.seeds(*claim.arms)
    if not seeds:
        return ClaimResult(claim, None, None, 0)
    one, other = claim.measured(evidence, seeds)
    if not one.size:
        return ClaimResult(claim, None, None, len(seeds))
    censored = int(np.isinf(one).sum())
    one = np.where(np.isinf(one), evidence.budget, one)
    effect = effect_size(one, other) if claim.statistic is difference else None
    return ClaimResult(claim, paired_bootstrap(one, other, claim.statistic), effect, len(seeds), censored)


def findings(evidence: Evidence) -> list[ClaimResult]:
    """All claims, in order."""
    return [find(claim, evidence) for claim in claims(evidence)]


def findings_at(evidence: Evidence, share: float) -> list[ClaimResult]:
    """All claims, had the budget been this share of what it was."""
    return findings(evidence.within(share * evidence.budget))
