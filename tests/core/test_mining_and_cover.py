from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.config import MineConfig
from p2o_core.cover import assign_templates, greedy_cover
from p2o_core.mining import mine, mine_hard, mining_report, signal_statistics
from p2o_core.types import HardSample, Template

matrix = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(matrix)
def test_greedy_cover_is_its_definition(solved: list[list[bool]]) -> None:
    chosen = greedy_cover(solved)
    covered: set[int] = set()
    for place, candidate in enumerate(chosen):
        gains = [len({i for i, won in enumerate(row) if won} - covered) for row in solved]
        assert gains[candidate] == max(gains) > 0
        assert candidate == gains.index(max(gains)), "ties go to the lowest index"
        covered |= {i for i, won in enumerate(solved[candidate]) if won}
        assert candidate not in chosen[:place]
    assert covered == {i for row in solved for i, won in enumerate(row) if won}


@given(matrix)
def test_greedy_cover_is_within_the_classic_bound(solved: list[list[bool]]) -> None:
    """At most H(width) times the smallest cover (Chvátal 1979), found by brute force."""
    universe = {i for row in solved for i, won in enumerate(row) if won}
    rows = [{i for i, won in enumerate(row) if won} for row in solved]
    sizes = range(len(rows) + 1)
    smallest = next(n for n in sizes if any(set().union(*pick) == universe for pick in combinations(rows, n)))
    harmonic = sum(1 / k for k in range(1, len(solved[0]) + 1))
    assert len(greedy_cover(solved)) <= harmonic * smallest + 1e-9


def test_greedy_cover_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="every dev instance"):
        greedy_cover([[True], [True, False]])


def test_mining() -> None:
    rewards = {"z": [0.0, 0.0, 0.0], "a": [0.0, 1.0, 0.0], "m": [1.0, 1.0, 0.0], "b": [1.0, 1.0, 1.0]}
    assert mine_hard(rewards) == ["z", "a"], "input order, not alphabetical"
    assert mine_hard(rewards, near_hard=False) == ["z"]
    assert mine_hard({"one": [1.0]}) == [], "a single success is no near miss"
    statistics = signal_statistics(rewards)
    assert statistics.all_fail == statistics.all_pass == 0.25
    assert statistics.zero_signal == 0.5


def test_the_hard_set_follows_its_switches() -> None:
    """What the stage and the iteration call: the configured rule, the window, and the counts of the tables."""
    rewards = {"z": [0.0, 0.0, 0.0], "a": [0.0, 1.0, 0.0], "m": [1.0, 1.0, 0.0]}
    before = [HardSample("old", 0.0, False, 1), HardSample("last", 0.0, False, 2), HardSample("m", 0.0, False, 2)]
    z, a = HardSample("z", 0.0, False, 3), HardSample("a", 1 / 3, True, 3)
    assert mine(rewards, before, MineConfig(), 3) == [z, a], "a window of one iteration remembers nothing"
    assert mine(rewards, before, MineConfig(near_hard=False), 3) == [z]
    hard = mine(rewards, before, MineConfig(window=2), 3)
    assert hard == [before[1], z, a], "rolled out again, 'm' is no longer hard"
    report = mining_report(rewards, hard, dict.fromkeys(rewards, "easy"), 3)
    assert (report.hard, report.near_hard, report.remembered) == (2, 1, 1)


@pytest.mark.parametrize("bad", [[], [float("nan"), 0.0]])
def test_mining_refuses_groups_it_cannot_judge(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="'p'"):
        mine_hard({"p": bad})


TEMPLATES = [Template(3, "a", (), (1.0, 0.0), True), Template(7, "b", (), (0.0, 0.0), True)]


def test_assignment_prefers_templates_that_solve_the_problem() -> None:
    drawn = assign_templates(
        ["dev", "other"], TEMPLATES, {"dev": [7]}, rollouts=50, one_per_group=False, rng=random.Random(0)
    )
    assert {a.template_index for a in drawn if a.problem_id == "dev"} == {7}
    others = [a.template_index for a in drawn if a.problem_id == "other"]
    assert others.count(3) >= 49, "weights are mean dev scores, floored at 1e-6"
    assert [a.sample for a in drawn] == [*range(50), *range(50)]


def test_assignment_weights_follow_the_mean_scores() -> None:
    templates = [Template(0, "a", (), (0.75,), True), Template(1, "b", (), (0.25,), True)]
    drawn = assign_templates(["p"], templates, {}, rollouts=4000, one_per_group=False, rng=random.Random(1))
    share = sum(a.template_index == 0 for a in drawn) / 4000
    assert abs(share - 0.75) < 0.03


def test_one_template_per_group_and_none_at_all() -> None:
    templates = [Template(i, str(i), (), (0.5,), True) for i in range(5)]
    drawn = assign_templates(["p", "q"], templates, {}, rollouts=8, one_per_group=True, rng=random.Random(0))
    assert all(len({a.template for a in drawn if a.problem_id == p}) == 1 for p in "pq")
    assert assign_templates(["p"], [], {}, rollouts=8, one_per_group=False, rng=random.Random(0)) == []
