"""The spellings that stress/golds.py tries say what the answer says."""

from __future__ import annotations

from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from sympy.parsing.sympy_parser import parse_expr

from stress.spellings import spelt

EXACT = {"with .0", "a/b", "decimal", "decimal with a zero behind", "e-notation", "thousands, comma"}


@given(st.fractions(max_denominator=64))
def test_numbers_keep_their_value(value: Fraction) -> None:
    sign, top = "-" if value < 0 else "", abs(value.numerator)
    gold = f"{sign}{top}" if value.denominator == 1 else f"{sign}\\frac{{{top}}}{{{value.denominator}}}"
    others = dict(spelt(gold))
    assert gold not in others.values()
    assert {"bold"} < set(others)
    for kind in EXACT & set(others):
        assert Fraction(others[kind].replace(",", "")) == value, kind


@pytest.mark.parametrize("gold", ["\\frac{\\sqrt{3}}{2}", "2x^2 + 3x", "e^{2} - 1", "\\frac{\\pi}{6}"])
def test_formulas_are_printed_by_sympy(gold: str) -> None:
    from math_verify import parse

    others = dict(spelt(gold))
    both = [
        parse_expr(others["sympy's text"], {"e": sympy.E}),
        parse(f"\\boxed{{{gold}}}", parsing_timeout=None)[0],
    ]
    ours, theirs = (expression.subs(dict.fromkeys(expression.free_symbols, 1.75)) for expression in both)
    assert float(ours) == pytest.approx(float(theirs))


@pytest.mark.parametrize(
    ("gold", "answers", "some"),
    [
        ("69,84", "set", {"84, 69", "\\{69, 84\\}", "69 \\text{ and } 84"}),
        ("(1,2)", "set", set()),
        ("1,2", None, set()),
        ("\\text{(B)}", None, {"B", "\\textbf{B}"}),
        ("4.5 \\times 10^{33}", None, {"4.5e33", "4.5×10³³"}),
        ("90^\\circ", None, {"90°"}),
        ("-\\frac{7}{4}", None, {"-7/4", "-1\\frac{3}{4}", "-1 3/4", "-1.75"}),
    ],
)
def test_other_kinds(gold: str, answers: object, some: set[str]) -> None:
    assert some <= {text for _, text in spelt(gold, answers)}  # type: ignore[arg-type]
    assert some or not list(spelt(gold, answers))  # type: ignore[arg-type]
