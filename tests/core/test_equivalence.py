"""Pairs of answer and gold answer by kind: what is the same in another dress, and what is another answer."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from p2o_core.types import VerdictStatus
from p2o_core.verify import check_answer
from p2o_core.verify.equivalence import last_boxed
from p2o_core.verify.measured import split
from p2o_core.verify.notation import in_latex, plain_mathematics, plain_numbers

SAME = [
    ("10\u202f000", "10000"),
]
DIFFERENT = [
    ("", "5"),
    ("4\n5", "45"),
    ("1\xa023", "123"),
]
"""Pairs that a table cannot hold, since signs that nobody sees decide; the tables are in ``answers/``."""


def judged(answer: str, gold: str) -> VerdictStatus:
    return check_answer((f"So it is \\boxed{{{answer}}}.", gold)).status


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same(answer: str, gold: str) -> None:
    assert judged(answer, gold) is VerdictStatus.CORRECT


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_not_the_same(answer: str, gold: str) -> None:
    assert judged(answer, gold) is not VerdictStatus.CORRECT


UNBOXED = [
    ("The answer is 2 2/3.", "2", False),
    ("The answer is 2 2/3.", "8/3", True),
    ("The answer is 2 2/3.", "2/3", False),
    ("So we get 12 m", "12 cm", False),
    ("So we get 12 m", "12", True),
    ("The answer is 4.5e33.", "4.5\\times10^{33}", True),
    ("The answer is 4.5e33.", "33", False),
    ("The answer is 4.5e33.", "4.5", False),
    ("It costs $5.", "€5", False),
    ("It costs $5.", "\\$5", True),
    ("The answer is 3½.", "3.5", True),
    ("The answer is 50%", "\\$50", False),
    ("Therefore $x = \\frac{1}{2}$.", "0.5", True),
]


@pytest.mark.parametrize(("response", "gold", "right"), UNBOXED)
def test_answers_without_a_box(response: str, gold: str, right: bool) -> None:
    assert (check_answer((response, gold)).reward == 1.0) == right


def test_any_of_several_gold_answers_is_right() -> None:
    golds = ("\\frac{1}{3}c", "c/3")
    assert check_answer(("\\boxed{c/3}", golds)).status is VerdictStatus.CORRECT
    assert check_answer(("\\boxed{3c}", golds)).status is VerdictStatus.WRONG
    assert check_answer(("\\boxed{2}", ("1", "2"))).status is VerdictStatus.CORRECT
    assert check_answer(("\\boxed{1, 2}", ("1", "2"))).status is VerdictStatus.WRONG, "spellings, not a set"


def decimal(value: Fraction) -> str | None:
    """As a terminating decimal, None when it does not end."""
    digits = Decimal(value.numerator) / Decimal(value.denominator)
    text = f"{digits:f}"
    return text if Fraction(text) == value else None


def scientific(value: Fraction) -> str | None:
    text = decimal(value)
    return None if text is None else f"{Decimal(text):e}"


def mixed(value: Fraction) -> str | None:
    whole, over = divmod(abs(value.numerator), value.denominator)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole} {over}/{value.denominator}" if whole and over else None


def times_ten(value: Fraction) -> str | None:
    text = scientific(value)
    return None if text is None else "\\times10^{".join(text.split("e")) + "}"


NOTATIONS = {
    "fraction": lambda value: f"\\frac{{{value.numerator}}}{{{value.denominator}}}",
    "slash": lambda value: f"{value.numerator}/{value.denominator}",
    "decimal": decimal,
    "e": scientific,
    "times ten": times_ten,
    "mixed": mixed,
    "thousands": lambda value: f"{value.numerator:,}" if value.denominator == 1 else None,
    "unit": lambda value: f"\\frac{{{value.numerator}}}{{{value.denominator}}}\\text{{ cm}}",
    "bold": lambda value: f"\\boldsymbol{{{value.numerator}/{value.denominator}}}",
    "equation": lambda value: f"x = {value.numerator}/{value.denominator}",
}
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(Fraction),
    st.fractions(-1000, 1000, max_denominator=1000),
    st.builds(
        lambda digits, power: Fraction(digits) * Fraction(10) ** power, st.integers(-999, 999), st.integers(-25, 25)
    ),
)

NOTATION = st.sampled_from(sorted(NOTATIONS))


def written(value: Fraction, notation: str) -> str:
    text = NOTATIONS[notation](value)
    return NOTATIONS["fraction"](value) if text is None else text


@given(one=NUMBERS, other=NUMBERS, here=NOTATION, there=NOTATION)
def test_numbers_are_right_exactly_when_they_are_equal(one: Fraction, other: Fraction, here: str, there: str) -> None:
    assume(one != other)
    assert judged(written(one, here), written(one, there)) is VerdictStatus.CORRECT
    assert judged(written(one, here), written(other, there)) is VerdictStatus.WRONG


@given(value=NUMBERS, here=NOTATION, there=NOTATION, near=st.booleans())
def test_neither_signs_nor_neighbours_are_mistaken(value: Fraction, here: str, there: str, near: bool) -> None:
    """The opposite, and the number beside it in the last of twelve digits."""
    assume(value)
    other = value * Fraction(10**12 + 1, 10**12) if near else -value
    assert judged(written(value, here), written(other, there)) is VerdictStatus.WRONG


SIGNS = ["{}\\%", "\\${}", "{}\\text{{ cm}}", "{} \\text{{ miles}}", "{}^\\circ", "{} degrees", "${}$", "{}."]


@given(value=st.integers(1, 10**6), other=st.integers(1, 10**6), sign=st.sampled_from(SIGNS), swap=st.booleans())
def test_signs_never_change_a_number(value: int, other: int, sign: str, swap: bool) -> None:
    decorated = sign.format(other)
    pair = (str(value), decorated) if swap else (decorated, str(value))
    same_share = "%" in sign and other == 100 * value  # 500 % is 5
    assert (judged(*pair) is VerdictStatus.CORRECT) == (value == other or same_share)


@given(st.text(max_size=40))
def test_any_text_is_taken_apart_and_nothing_is_left_for_a_second_time(text: str) -> None:
    once = in_latex(text)
    assert in_latex(once).split() == once.split() or "\\" in text
    assert len(split(once).value) <= len(once) + 20
    assert isinstance(plain_mathematics(plain_numbers(once)), str)


def test_boxes_may_nest() -> None:
    assert last_boxed("\\boxed{1} \\boxed{\\frac{\\sqrt{2}}{3}}") == "\\frac{\\sqrt{2}}{3}"
    assert last_boxed("\\boxed{1} \\boxed{2") == "1"
    assert last_boxed("none") is None


def test_boxes_side_by_side_are_one_answer_or_the_last_is() -> None:
    assert check_answer(("\\boxed{1} and \\boxed{2}", "1, 2")).status is VerdictStatus.CORRECT
    assert check_answer(("\\boxed{1} and \\boxed{2}", "2")).status is VerdictStatus.CORRECT
    assert check_answer(("\\boxed{1} and \\boxed{2}", "1")).status is VerdictStatus.WRONG
