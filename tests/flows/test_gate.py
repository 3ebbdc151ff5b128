"""Two policies on the same problems: who is better, and who is not surely so."""

from __future__ import annotations

import pytest

from flows.comparison.gate import WHOLE, Promotion, judge
from p2o_core.types import Problem

PROBLEMS = [Problem(f"{tier}-{i}", "q", "1", tier, "heldout") for tier in ("easy", "hard") for i in range(40)]


def solved(easy: float, hard: float) -> dict[str, list[float]]:
    """Two samples a problem; of each tier the first problems are solved."""
    shares = {"easy": easy, "hard": hard}
    return {p.id: [float(int(p.id.split("-")[1]) < 40 * shares[p.difficulty])] * 2 for p in PROBLEMS}


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict"),
    [
        ((0.9, 0.6), (0.9, 0.2), "better"),
        ((0.9, 0.2), (0.9, 0.6), "worse"),
        ((0.9, 0.5), (0.9, 0.5), "undecided"),
        ((0.9, 0.525), (0.9, 0.5), "undecided"),
        ((0.4, 1.0), (0.9, 0.1), "worse"),  # better over all, and easy problems surely lost
    ],
)
def test_verdicts(candidate: tuple[float, float], champion: tuple[float, float], verdict: str) -> None:
    measures, found = judge(PROBLEMS, solved(*candidate), solved(*champion))
    assert found == verdict
    assert set(measures) == {WHOLE, "easy", "hard"}
    whole = measures[WHOLE]
    assert whole.low <= whole.difference <= whole.high
    assert whole.difference == pytest.approx((sum(candidate) - sum(champion)) / 2)
    assert (whole.problems, measures["hard"].problems) == (80, 40)


def test_pairing_makes_small_gains_visible() -> None:
    """Eight problems gained and none lost, in the middle of a wide spread."""
    measures, verdict = judge(PROBLEMS, solved(0.6, 0.5), solved(0.5, 0.4))
    assert verdict == "better"
    assert measures[WHOLE].high - measures[WHOLE].low < 0.16, "unpaired it would be 0.3 wide"


def test_words_name_what_is_lost() -> None:
    measures, verdict = judge(PROBLEMS, solved(0.4, 1.0), solved(0.9, 0.1))
    said = str(Promotion("version 2", "version 1 (other)", 2, "0" * 64, measures, verdict))
    assert said.startswith("worse: 70.0 % against 50.0 % of version 1 (other), +20.0 points [")
    assert said.endswith("on 80 held-out problems × 2; surely lost: easy -50.0")


def test_a_problem_without_rewards_is_an_error() -> None:
    with pytest.raises(ValueError, match="hard-0"):
        judge(PROBLEMS, solved(1, 1), {id_: r for id_, r in solved(1, 1).items() if id_ != "hard-0"})
