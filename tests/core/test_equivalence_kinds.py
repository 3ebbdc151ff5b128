"""Pairs of response and gold answer by kind, found by a search for what is judged wrongly.

The tables are ``tests/core/answers/*.txt``: headings by kind, a pair a line, ``answer ⇒ gold``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from p2o_core.verify import check_answer

TABLES = Path(__file__).parent / "answers"


def pairs(table: str) -> list[tuple[str, str]]:
    lines = (TABLES / f"{table}.txt").read_text("utf-8").splitlines()
    return [(answer, gold) for answer, arrow, gold in (line.partition(" ⇒ ") for line in lines) if arrow]


@pytest.mark.parametrize(("table", "reward"), [("right", 1.0), ("wrong", 0.0)])
def test_boxed(table: str, reward: float) -> None:
    judged = pairs(table)
    assert len(judged) > 600
    failed = [pair for pair in judged if check_answer((f"So it is \\boxed{{{pair[0]}}}.", pair[1])).reward != reward]
    assert failed == []


@pytest.mark.parametrize(("table", "reward"), [("right_unboxed", 1.0), ("wrong_unboxed", 0.0)])
def test_without_a_box(table: str, reward: float) -> None:
    judged = pairs(table)
    assert len(judged) > 50
    failed = [pair for pair in judged if check_answer(pair).reward != reward]
    assert failed == []
