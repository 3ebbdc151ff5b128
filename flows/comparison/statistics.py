"""Paired comparisons: bootstrap intervals over bases, seeds and problems, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_SEEDS = 5
"""Below this a bootstrap over seeds has too few distinct resamples (4 seeds: 35) for a 95 % interval."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
Sample = Sequence[np.ndarray]
"""What an arm has to show: for each base [S, P], the mean reward of S seeds on the base's P problems."""


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95 % bootstrap interval.

    >>> Interval(0.4, 0.3, 0.5).excludes(0.0)
    True
    """

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high


def paired_bootstrap(
    one: Sample, other: Sample, statistic: Statistic, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over bases, seeds and problems, both arms resampled alike.

    Args:
        one, other: of the same shapes, rows paired by seed and columns by problem. Each base counts alike.
        statistic: from the resampled means ``[R]`` of both arms to ``[R]`` values, e.g. ``lambda a, b: a - b``.
        resamples: R.

    Bases are drawn with replacement, and anew for each drawn base its seeds and, independently, its problems (a
    two-way or "pigeonhole" bootstrap, Owen 2007, within a hierarchical one). So the interval covers new bases, seeds
    and problems alike: runs on one base are no more independent than they are. Drawing with replacement on every
    level overstates the spread within bases (Davison & Hinkley 1997, section 3.8); three bases understate that
    between them, for few clusters are. With one base it is the two-way bootstrap, conservative too.

    Raises:
        ValueError: the shapes differ, or there is nothing to resample.
    """
    shapes = [part.shape for part in one]
    if not shapes or shapes != [part.shape for part in other] or not all(p.ndim == 2 and p.size for p in one):
        raise ValueError(
            f"need arrays of the same shapes [seeds, problems], got {shapes} and {[part.shape for part in other]}"
        )
    rng = np.random.default_rng(seed)
    means = np.zeros((2, resamples))
    for _ in shapes:
        drawn = rng.integers(0, len(shapes), size=resamples)
        for base, arms in enumerate(zip(one, other, strict=True)):
            rows = drawn == base
            means[:, rows] += _resampled(arms, int(rows.sum()), rng)
    values = statistic(*(means / len(shapes)))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    point = statistic(*(np.array([np.mean([part.mean() for part in arm])]) for arm in (one, other)))[0]
    return Interval(float(point), float(low), float(high))


def _resampled(arms: tuple[np.ndarray, np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[2, R]: means of both arms on one base, over drawn seeds and problems."""
    seeds, problems = arms[0].shape
    # weights instead of copies: mean over drawn seeds and problems = w_seed @ rewards @ w_problem
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    by_problem = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples) / problems
    return np.array([np.einsum("rs,sp,rp->r", by_seed, arm, by_problem, optimize=True) for arm in arms])


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The statistic "how much more"."""
    return one - other


def bootstrap_mean(values: Sample, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Interval of the mean of one number a run, [S, 1] for each base."""
    return paired_bootstrap(values, values, lambda one, _: one, resamples=resamples, seed=seed)


def overall_mean(sample: Sample) -> float:
    """Over problems, seeds and bases, each base counting alike."""
    return float(np.mean([part.mean() for part in sample]))


def effect_size(one: Sample, other: Sample) -> float:
    """Cohen's d for paired samples, one mean a base and seed: mean difference over its standard deviation; infinite
    when all agree to the last digit, 0 when there is no difference at all."""
    differences = np.concatenate([a.mean(axis=1) - b.mean(axis=1) for a, b in zip(one, other, strict=True)])
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if spread == 0:
        return math.copysign(math.inf, differences.mean()) if differences.mean() else 0.0
    return float(differences.mean() / spread)
