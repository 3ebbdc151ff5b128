"""Intervals cover what they claim to cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flows.comparison.statistics import bootstrap_mean, difference, effect_size, paired_bootstrap


def world(rng: np.random.Generator, gap: float, seeds: int = 6, problems: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two arms on the same problems: problem effects shared, seed effects of their own, ``gap`` between them."""
    base = 0.3 + 0.1 * rng.standard_normal(problems) + 0.05 * rng.standard_normal((seeds, 1))
    noise = 0.05 * rng.standard_normal((2, seeds, problems))
    return base + gap + 0.02 * rng.standard_normal((seeds, 1)) + noise[0], base + noise[1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        interval = paired_bootstrap(*([arm] for arm in world(rng, 0.2)), difference, resamples=400, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    assert covered >= 170, "the two-way bootstrap is conservative; six seeds cost it some of that"


def test_pairing_narrows_the_interval() -> None:
    one, other = world(np.random.default_rng(1), 0.1)
    paired = paired_bootstrap([one], [other], difference)
    mixed = np.random.default_rng(2).permutation(other.ravel()).reshape(other.shape)
    shuffled = paired_bootstrap([one], [mixed], difference)
    assert paired.high - paired.low < shuffled.high - shuffled.low
    assert paired.excludes(0.0)


def test_the_mean_and_shares_lost() -> None:
    one, other = np.full((5, 4), 0.6), np.full((5, 4), 0.1)
    lost = paired_bootstrap([one], [other], lambda p2o, without: 1 - without / p2o)
    assert (lost.value, lost.low, lost.high) == pytest.approx((5 / 6, 5 / 6, 5 / 6))
    assert bootstrap_mean([np.ones((3, 1))]).low == 1.0


def test_effect_size_by_hand() -> None:
    one, other = np.array([[0.5], [0.7]]), np.array([[0.4], [0.4]])
    assert effect_size([one], [other]) == pytest.approx(0.2 / math.sqrt(0.02))
    assert effect_size([one[:1], one[1:]], [other[:1], other[1:]]) == pytest.approx(0.2 / math.sqrt(0.02))
    assert effect_size([one], [one]) == 0.0
    assert effect_size([one + 1], [one]) > 1e6


def test_unequal_shapes_are_refused() -> None:
    for other in ([np.zeros((3, 2))], [], [np.zeros((2, 3))] * 2):
        with pytest.raises(ValueError, match="same shapes"):
            paired_bootstrap([np.zeros((2, 3))], other, difference)


def test_an_interval_over_bases_covers_new_bases() -> None:
    """The gap differs from base to base, and runs on one base share it: many seeds do not make up for few bases."""
    rng, covered, pooled_covered = np.random.default_rng(3), 0, 0
    for trial in range(100):
        pairs = [world(rng, 0.2 + 0.1 * rng.standard_normal(), seeds=5, problems=20) for _ in range(5)]
        one, other = zip(*pairs, strict=True)
        interval = paired_bootstrap(one, other, difference, resamples=400, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
        pooled = paired_bootstrap([np.concatenate(one)], [np.concatenate(other)], difference, resamples=400, seed=trial)
        pooled_covered += pooled.low <= 0.2 <= pooled.high
    assert covered >= 80, "five clusters cost it some of its 95 %"
    assert pooled_covered < covered - 10, "taking 25 runs for independent says too much"


def test_each_base_counts_alike() -> None:
    one, other = [np.ones((5, 4)), np.full((1, 8), 0.5)], [np.zeros((5, 4)), np.zeros((1, 8))]
    interval = paired_bootstrap(one, other, difference)
    assert (interval.value, interval.low, interval.high) == (0.75, 0.5, 1.0)
