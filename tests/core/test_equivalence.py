"""Answers that say the same though a sign stands on one side only, and numbers that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.equivalence import bare, last_boxed
from p2o_core.types import VerdictStatus
from p2o_core.verify import check_answer

SAME = [
    ("50\\%", "50"),
    ("50", "50\\%"),
    ("50\\%", "0.5"),
    ("12\\text{ cm}", "12"),
    ("12", "12 \\text{ cm}^2"),
    ("12 cm", "12"),
    ("\\$1,234.50", "1234.5"),
    ("1{,}234", "1234"),
    ("1234", "1,234"),
    ("90^\\circ", "90"),
    ("90", "90^{\\circ}"),
    ("17 \\text{ dollars}", "\\$17"),
    ("x=5", "5"),
    ("east", "\\text{east}"),
    ("A", "\\text{(A)}"),
    ("\\frac12", "\\dfrac{1}{2}"),
    ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("\\frac{1}{2}\\%", "\\frac{1}{2}"),
    ("9.6", "9.6"),
]
DIFFERENT = [
    ("0.5", "50"),
    ("50", "0.5"),
    ("33", "33.3"),
    ("1", "1,234"),
    ("(1,234)", "1234"),
    ("1, 234", "1234"),
    ("12 \\text{ cm}^2", "12 \\text{ cm}^3"),
    ("101_2", "101_3"),
    (".00006721", ".0000672"),
    ("0.1234567", "0.1234568"),
    ("west", "\\text{east}"),
    ("51\\%", "50"),
    ("50\\%", "5"),
    ("", "5"),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same(answer: str, gold: str) -> None:
    assert check_answer((f"So it is \\boxed{{{answer}}}.", gold)).status is VerdictStatus.CORRECT


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_not_the_same(answer: str, gold: str) -> None:
    assert check_answer((f"So it is \\boxed{{{answer}}}.", gold)).reward == 0.0


SIGNS = ["{}\\%", "\\${}", "{}\\text{{ cm}}", "{} \\text{{ miles}}", "{}^\\circ", "{} degrees", "${}$", "{}."]


@given(value=st.integers(1, 10**6), other=st.integers(1, 10**6), sign=st.sampled_from(SIGNS), swap=st.booleans())
def test_signs_never_change_a_number(value: int, other: int, sign: str, swap: bool) -> None:
    decorated = sign.format(other)
    pair = (str(value), decorated) if swap else (decorated, str(value))
    verdict = check_answer((f"\\boxed{{{pair[0]}}}", pair[1]))
    same_share = "%" in sign and other == 100 * value  # 500 % is 5
    assert verdict.reward == float(value == other or same_share)


@given(st.text(max_size=40))
def test_any_text_is_taken_apart(text: str) -> None:
    bare(text)
    last_boxed(text)


def test_boxes_may_nest() -> None:
    assert last_boxed("\\boxed{1} \\boxed{\\frac{\\sqrt{2}}{3}}") == "\\frac{\\sqrt{2}}{3}"
    assert last_boxed("\\boxed{1} \\boxed{2") == "1"
    assert last_boxed("none") is None
