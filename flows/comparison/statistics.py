"""Paired comparisons: bootstrap intervals over seeds and problems, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MIN_SEEDS = 5
"""Below this a bootstrap over seeds has too few distinct resamples (4 seeds: 35) for a 95 % interval."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


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
    one: np.ndarray, other: np.ndarray, statistic: Statistic, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over seeds and problems, both arms resampled alike.

    Args:
        one, other: [S, P] mean reward of S seeds on the same P problems, rows paired by seed.
        statistic: from the resampled means ``[R]`` of both arms to ``[R]`` values, e.g. ``lambda a, b: a - b``.
        resamples: R.

    The seeds are drawn with replacement, and independently the problems (a two-way or "pigeonhole" bootstrap,
    Owen 2007, which is conservative): the interval covers new seeds and new problems alike.

    Raises:
        ValueError: the shapes differ, or there is nothing to resample.
    """
    if one.shape != other.shape or one.ndim != 2 or one.size == 0:
        raise ValueError(f"need two arrays of one shape [seeds, problems], got {one.shape} and {other.shape}")
    rng = np.random.default_rng(seed)
    seeds, problems = one.shape
    # weights instead of copies: mean over drawn seeds and problems = w_seed @ rewards @ w_problem
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    by_problem = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples) / problems
    means = [np.einsum("rs,sp,rp->r", by_seed, arm, by_problem, optimize=True) for arm in (one, other)]
    values = statistic(*means)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    point = statistic(np.array([one.mean()]), np.array([other.mean()]))[0]
    return Interval(float(point), float(low), float(high))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The statistic "how much more"."""
    return one - other


def bootstrap_mean(values: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Interval of the mean of one number a seed: [S]."""
    rng = np.random.default_rng(seed)
    draws = values[rng.integers(0, len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def effect_size(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's d for paired samples, one mean a seed: mean difference over its standard deviation; infinite when all
    seeds agree to the last digit, 0 when there is no difference at all."""
    differences = one.mean(axis=1) - other.mean(axis=1)
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if spread == 0:
        return math.copysign(math.inf, differences.mean()) if differences.mean() else 0.0
    return float(differences.mean() / spread)
