from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.evaluation import avg_at_k, maj_at_k, pass_at_k

samples = st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=6)


@given(st.lists(samples, min_size=1, max_size=4), st.integers(1, 3))
def test_pass_at_k_is_the_mean_over_all_draws_of_k(groups: list[list[float]], k: int) -> None:
    expected = [
        sum(max(draw) for draw in combinations(group, k)) / len(list(combinations(group, k))) for group in groups
    ]
    rewards = {str(i): group for i, group in enumerate(groups)}
    assert pass_at_k(rewards, k) == pytest.approx(sum(expected) / len(expected))


def test_avg_at_k_weighs_problems_equally() -> None:
    assert avg_at_k({"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0]}) == 0.5


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        pass_at_k({"a": [1.0]}, 4)


@pytest.mark.parametrize(
    ("samples", "share"),
    [
        ([("1/2", 1.0), ("0.5", 1.0), ("3", 0.0)], 1.0),
        ([("3", 0.0), ("3", 0.0), ("0.5", 1.0)], 0.0),
        ([("3", 0.0), ("0.5", 1.0)], 0.5),
        ([("", 0.0), ("", 0.0), ("0.5", 1.0)], 1.0),
        ([("", 0.0)], 0.0),
    ],
)
def test_the_most_frequent_answer_counts(samples: list[tuple[str, float]], share: float) -> None:
    assert maj_at_k({"a": samples}) == share
    assert maj_at_k({"a": samples, "b": [("1", 1.0)]}) == (share + 1) / 2
