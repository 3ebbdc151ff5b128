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

SAME = {
    "long known": [
        (r"50\%", "50"),
        ("50", r"50\%"),
        (r"50\%", "0.5"),
        (r"12\text{ cm}", "12"),
        ("12", r"12 \text{ cm}^2"),
        ("12 cm", "12"),
        (r"\$1,234.50", "1234.5"),
        ("1{,}234", "1234"),
        ("1234", "1,234"),
        (r"90^\circ", "90"),
        ("90", r"90^{\circ}"),
        (r"17 \text{ dollars}", r"\$17"),
        ("x=5", "5"),
        ("east", r"\text{east}"),
        ("A", r"\text{(A)}"),
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\frac{1}{2}\%", r"\frac{1}{2}"),
        ("9.6", "9.6"),
    ],
    "relative, signs exact": [
        (r"6.02\times10^{23}", r"6.02\cdot 10^{23}"),
        (r"1.6\times10^{-19}", r"0.16\times10^{-18}"),
        (r"\frac{1}{2^{98}}", "2^{-98}"),
        (r"0.1\times10^3", "100"),
        ("0.5", r"\frac12"),
        (r"\frac{1}{\sqrt3}", r"\frac{\sqrt3}{3}"),
        ("1.0", "1"),
    ],
    "units": [
        ("3:00 PM", "3:00 p.m."),
        ("3:00", "3:00 p.m."),
        (r"5\text{ kg}", r"5\text{ kilograms}"),
        ("12 feet", "12 ft"),
        ("1 foot", "1 feet"),
        ("12 inches", "12 in"),
        ("5 dollars", r"\$5"),
        ("50 cents", r"\$0.50"),
        ("100 cm", "1 m"),
        ("2 hours", "120 minutes"),
        (r"5\text{ m/s}", r"5\ \frac{\text{m}}{\text{s}}"),
        (r"5\text{ cm}^2", r"5\text{ square centimeters}"),
        ("60 km/h", r"60\text{ km/h}"),
        ("60 mph", r"60\text{ miles per hour}"),
        ("8元", "8"),
        (r"5~\mathrm{cm}", "5"),
        ("5", "5 km/h"),
        ("20个", "20"),
        ("5 см", "5"),
        ("5 people", "5"),
        ("5 students", r"5\text{ people}"),
        ("50 %", r"50\%"),
        ("3 day", "3 days"),
        ("5 thousand", "5000"),
        (r"\frac{1}{2}\text{ hour}", "30 minutes"),
        ("£5", "5 pounds"),
        ("USD 5", r"\$5"),
    ],
    "spaces between digits": [
        ("10 000", "10000"),
        (r"10\,000", "10000"),
        (r"10\ 000", "10000"),
        ("1 234 567", "1234567"),
        ("10\u202f000", "10000"),
        (r"1\!234", "1234"),
        ("4 5", "4 5"),
        ("4, 5", "4,5"),
        ("10000", "10 000"),
    ],
    "mixed numbers": [
        ("2 2/3", "8/3"),
        ("1 1/4", "5/4"),
        ("3.5", "3 1/2"),
        (r"1\frac{1}{4}", r"\frac54"),
        ("-1 1/4", "-5/4"),
        (r"2 \frac{2}{3}", "8/3"),
        (r"2\ \frac23", "8/3"),
        (r"2\,\frac{2}{3}", r"2\frac23"),
        ("1 1/2 cups", r"1.5\text{ cups}"),
    ],
    "dots": [
        (r"1,2,\dots,n", r"1, 2, \ldots, n"),
        ("1,2,...,n", r"1,2,\cdots,n"),
    ],
    "e-notation": [
        (r"4.5\times10^{33}", "4.5e33"),
        ("1.2e3", "1200"),
        ("1200", "1.2e3"),
        ("1.2E+3", "1200"),
        ("1e-5", "0.00001"),
        ("-2.5e-3", "-0.0025"),
        (r"4.5 \cdot 10^{33}", "4.5e33"),
        ("4.5*10^33", "4.5e33"),
        ("4.5 x 10^33", "4.5e33"),
        ("4.5 × 10^33", "4.5e33"),
        ("2e", "2e"),
        ("4.5e33 erg/s", "4.5e33"),
    ],
    "plain text": [
        ("pi/2", r"\frac{\pi}{2}"),
        ("-2*pi", r"-2\pi"),
        ("x**2", "x^2"),
        ("exp(16)-1", "e^{16}-1"),
        ("sqrt(3)/2", r"\frac{\sqrt3}{2}"),
        ("2*sqrt(5)", r"2\sqrt{5}"),
        ("2pi", r"2\pi"),
        ("ln(2)", r"\ln 2"),
        ("x^10", "x^{10}"),
        ("2^10", "1024"),
        ("(x+1)/(x-1)", r"\frac{x+1}{x-1}"),
        ("sin(x)**2", r"\sin^2 x"),
        ("sqrt((x+1)/2)", r"\sqrt{\frac{x+1}{2}}"),
        ("3*x+2", "2+3x"),
        ("exp(-x)", "e^{-x}"),
        ("theta/2", r"\frac{\theta}{2}"),
        ("1/2*pi", r"\frac{\pi}{2}"),
        ("e**2", "e^2"),
        ("(-oo, 3)", r"(-\infty, 3)"),
        ("x>=2", r"x\ge 2"),
        ("5!", "120"),
        ("atan(1/2)", r"\arctan\frac12"),
        ("[pi, 2*pi]", r"[\pi, 2\pi]"),
        ("(pi, 2pi)", r"(\pi, 2\pi)"),
        ("y = 2*x + 1", "y=2x+1"),
    ],
    "Unicode": [
        ("√3/2", r"\frac{\sqrt3}{2}"),
        ("x²+1", "x^2+1"),
        ("½", r"\frac12"),
        ("3½", "3.5"),
        ("∞", r"\infty"),
        ("(-∞,1) ∪ (2,∞)", r"(-\infty,1)\cup(2,\infty)"),
        ("１２", "12"),
        ("2√3", r"2\sqrt{3}"),
        ("π/2", r"\frac{\pi}{2}"),
        ("x¹⁰", "x^{10}"),
        ("−5", "-5"),
        ("3×10⁵", "300000"),
        ("∅", r"\emptyset"),
        ("x ≤ 2", r"x\le2"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("∛8", "2"),
        ("45°", "45"),
        ("a₁", "a_1"),
        ("¾", "0.75"),
        ("5·3", "15"),
        ("10 ÷ 2", "5"),
        ("±2", r"\pm2"),
        ("{1, 2}", r"\{1,2\}"),
        ("1⁄2", "0.5"),
        ("2⁻³", "1/8"),
        ("√12", r"2\sqrt3"),
    ],
    "recurring decimals": [
        (r"0.\overline{3}", r"\frac13"),
        (r"\frac13", r"0.\overline{3}"),
        (r"0.1\overline{6}", r"\frac16"),
        (r"0.\bar{3}", r"\frac13"),
        (r"0.\dot{3}", r"\frac13"),
        (r"2.\overline{45}", r"\frac{27}{11}"),
        (r"0.\overline{9}", "1"),
        ("0.(3)", r"\frac13"),
        ("0.3̅", "1/3"),
    ],
    "multiple choice": [
        ("C) 14", "C"),
        (r"\textbf{(C) } 12", "C"),
        ("(C)", "C"),
        ("C. 14", "C"),
        (r"\text{(C) }12", r"\text{C}"),
        ("C", "(C) 12"),
        ("12", r"\textbf{(C) } 12"),
        ("C: 14", "C"),
        (r"\textbf{C}", "C"),
        (r"\mathrm{(C)}", "C"),
        ("Option C", "C"),
    ],
    "style and spelling": [
        (r"\emptyset", r"\varnothing"),
        (r"\boldsymbol{7}", "7"),
        (r"\bm{7}", "7"),
        (r"\underline{7}", "7"),
        ("5=x", "5"),
        ("x=5", "5"),
        (r"\mathbf{7}", "7"),
        (r"\textcolor{red}{7}", "7"),
        (r"\color{red}7", "7"),
        (r"\displaystyle 7", "7"),
        (r"\underline{\underline{7}}", "7"),
        (r"\{\}", r"\emptyset"),
        (r"\large 7", "7"),
        (r"\mathbf{x}=7", "7"),
        (r"\mathsf{7}", "7"),
    ],
    "taste": [
        ("1.0", "1.00"),
        ("(1,2)", "1,2"),
    ],
}
DIFFERENT = {
    "long known": [
        ("5 apples", "5 oranges"),
        (r"5\text{ cubic units}", r"5\text{ square units}"),
        ("5円", "5元"),
        ("12:00 p.m.", "12:00 a.m."),
        (r"\pi", "3.14"),
        ("10^{100}", "10^{100}+1"),
        ("2,4,\\ldots", "2,5,\\ldots"),
        ("0.5", "50"),
        ("50", "0.5"),
        ("33", "33.3"),
        ("1", "1,234"),
        ("(1,234)", "1234"),
        ("1, 234", "1234"),
        (r"12 \text{ cm}^2", r"12 \text{ cm}^3"),
        ("101_2", "101_3"),
        (".00006721", ".0000672"),
        ("0.1234567", "0.1234568"),
        ("west", r"\text{east}"),
        (r"51\%", "50"),
        (r"50\%", "5"),
        ("", "5"),
        (r"5\text{ boys}", r"5\text{ girls}"),
        ("2x", "2"),
        ("5 or 6", "6"),
        ("5 hours and 20 minutes", "20 minutes"),
    ],
    "relative, signs exact": [
        (r"3\times10^{-30}", r"5\times10^{-30}"),
        (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
        (r"-1.6\times10^{-19}", r"1.6\times10^{-19}"),
        (r"1.38\times10^{-23}", r"1.60\times10^{-19}"),
        ("0", "10^{-20}"),
        ("0", "1e-30"),
        ("10^{-20}", "0"),
        (r"3\times10^{-30}x", r"5\times10^{-30}x"),
        (r"\{3\times10^{-30}\}", r"\{5\times10^{-30}\}"),
        (r"(3\times10^{-30}, 1)", r"(5\times10^{-30}, 1)"),
        (r"[3\times10^{-30}, 1)", r"[5\times10^{-30}, 1)"),
        (r"x=3\times10^{-30}", r"5\times10^{-30}"),
        (r"x<3\times10^{-30}", r"x<5\times10^{-30}"),
        (r"3\times10^{-30}i", r"5\times10^{-30}i"),
        (r"\sqrt{2}\times10^{-20}", r"\sqrt{3}\times10^{-20}"),
        (r"\begin{pmatrix}10^{-20}\\1\end{pmatrix}", r"\begin{pmatrix}2\cdot10^{-20}\\1\end{pmatrix}"),
        (r"6.02\times10^{23}", r"6.03\times10^{23}"),
        ("100000000000000000001", "100000000000000000002"),
        ("0.30000000000000004", "0.3"),
        ("-5", "5"),
        ("1e-7", "2e-7"),
        (r"\sqrt{2}", "1.41421356"),
        ("3.14159265", r"\pi"),
    ],
    "units": [
        (r"12\text{ m}", r"12\text{ cm}"),
        (r"3\text{ hours}", r"3\text{ minutes}"),
        (r"\$5", r"5\%"),
        ("€5", r"\$5"),
        (r"3:00\text{ p.m.}", r"3:00\text{ a.m.}"),
        ("3 pm", "3 am"),
        ("3:05 p.m.", "3:00 p.m."),
        (r"5\text{ kg}", r"5\text{ g}"),
        (r"5\%", r"5\text{ cm}"),
        (r"30^\circ", r"30\%"),
        ("£5", "€5"),
        ("5 dollars", "5 euros"),
        ("5 cents", "5 dollars"),
        ("5 m/s", "5 km/h"),
        (r"5\text{ m}^2", r"5\text{ m}^3"),
        ("5 square meters", r"5\text{ m}"),
        (r"20^\circ\text{C}", r"20^\circ\text{F}"),
        (r"90^\circ", r"90\text{ rad}"),
        ("8 元", "8米"),
        ("12 m", "12 mm"),
        ("12 kW", "12 W"),
        ("12 MPa", "12 kPa"),
        ("3 days", "3 weeks"),
        (r"\$5\text{ million}", "5"),
        ("3 mg", "3 Mg"),
        ("5 N", "5 J"),
    ],
    "spaces between digits": [
        ("1 23", "123"),
        ("4 5", "45"),
        (r"2\ 5", "25"),
        ("4\n5", "45"),
        (r"12\,5", "125"),
        (r"1\;23", "123"),
        ("1~23", "123"),
        ("1\xa023", "123"),
        (r"\frac{1 2}{3}", "4"),
        ("-4 5", "-45"),
        ("1.2 5", "1.25"),
        ("1. 25", "1.25"),
        ("1234 567", "1234567"),
        ("1,23", "123"),
        ("1{,}23", "123"),
        (r"1\!23", "123"),
        (r"1\\23", "123"),
        (r"1\quad 23", "123"),
        ("123", "1 23"),
        ("(1 2, 3)", "(12,3)"),
        (r"1\text{ }23", "123"),
    ],
    "mixed numbers": [
        ("2 2/3", "2"),
        ("-1 1/4", "-3/4"),
        ("1 1/4", r"\frac{11}{4}"),
        ("1 1/4", "1 1/3"),
        (r"3\frac12", r"\frac32"),
    ],
    "dots": [
        (r"1, 3, 5, \ldots, 2n-1", r"1, 2, \ldots, n"),
        (r"2,4,\ldots,2n", r"1,2,\ldots,n"),
        (r"1,2,3,\ldots", "1,2,3"),
    ],
    "e-notation": [
        ("1e-5", "0.0001"),
        ("4.5e33", "4.5e34"),
    ],
    "plain text": [
        ("pi/3", r"\frac{\pi}{2}"),
        ("x**3", "x^2"),
    ],
    "Unicode": [
        ("x³", "x^2"),
        ("√2/2", r"\frac{\sqrt3}{2}"),
    ],
    "recurring decimals": [
        (r"0.\overline{3}", "0.3"),
        (r"0.\overline{36}", r"0.\overline{63}"),
    ],
    "multiple choice": [
        ("C) 14", "D"),
        ("(C) 12", "(D) 12"),
        ("D", "C"),
    ],
    "style and spelling": [
        ("6=x", "5"),
        (r"\bm{8}", "7"),
    ],
    "taste": [
        ("x>2", r"(2,\infty)"),
        ("0.3333333", r"\frac13"),
        (r"\frac13", "0.3333333"),
        (r"\text{no solution}", r"\emptyset"),
    ],
}


def judged(answer: str, gold: str) -> VerdictStatus:
    return check_answer((f"So it is \\boxed{{{answer}}}.", gold)).status


@pytest.mark.parametrize(("answer", "gold"), [pair for pairs in SAME.values() for pair in pairs])
def test_the_same(answer: str, gold: str) -> None:
    assert judged(answer, gold) is VerdictStatus.CORRECT


@pytest.mark.parametrize(("answer", "gold"), [pair for pairs in DIFFERENT.values() for pair in pairs])
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
