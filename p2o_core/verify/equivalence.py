r"""Whether an answer says the same as the gold answer. What is decided here, and why:

- **Numbers are equal exactly or not at all.** Rational ones are compared as fractions, others to forty digits and
  relatively; so are those inside sets, intervals, matrices and formulas. A rounded decimal is another number:
  ``0.3333333`` is not ``\frac13``, ``1.41421356`` is not ``\sqrt2``. Notation never matters: ``4.5e33``, ``1 1/4``,
  ``0.\overline{3}``.
- **Units**: one on one side only is no error, two that contradict each other are (:mod:`p2o_core.verify.units`).
  ``50\%`` is 50 and, where the other side has no sign, 0.5.
- **A space joins no digits**: ``4 5`` is not 45; ``10 000`` is 10000.
- **Lists that go on in dots** are equal member by member; ``1, 2, \ldots, n`` and ``1, 2, 3, \ldots, n`` are not.
- **Multiple choice**: the letter, the letter with its text and the text alone are the same; two texts with numbers
  in them have to agree. ``(A) 5 (B) 6`` chooses nothing.
- **Capitals**: ``R`` and ``r`` are two symbols; a letter that is chosen (``a``) and a constant of integration may be
  written either way.
- **Names**: ``x=2, y=1`` is not ``(1,2)``; names that follow each other in the alphabet have that order. Labels that
  are swapped (``5 boys and 7 girls``) are another answer.
- **Conditions**: ``12 when x=5`` is 12 and not 5; one on one side only is no error. What is denied is not said.
- **Primes, derivatives and transposes** are symbols of their own; ``\gcd`` and ``\operatorname{lcm}`` of letters are
  compared as they are written, since sympy takes letters for polynomials. A ratio of three (``3:4:5``) is no number.
- **Words that are factors** belong to the number: ``5 dozen`` is 60, ``2 thirds`` is not 2. ``5 below zero`` is -5.
- **A colon**: ``3:30`` is a time, not 0.1, and ``2:40`` is not ``1:20``; a ratio is one in lowest terms (``3:10``).
- **What contradicts**: ``5 more`` and ``5 fewer``, ``5 m north`` and ``5 m south``, ``5 red`` and ``5 blue``,
  ``x=6`` and ``y=6``, ``x=5=6``, numbers of another base; a base, like a unit, may be missing on one side. A rate
  (``3 to 4``) turned around is another. In a list without braces repetition counts, in a set it does not.
- **Words are text**: ``ABC`` is not ``ACB``; short lower-case ones (``ab``) are products.
- **Two units are one number**: ``5 ft 6 in`` is 66 inches. ``7:05`` and dates are compared as they are written.
- ``1/2x`` is half of x: a stroke takes the numbers beside it. ``4(\frac12)`` is a product, ``4\frac12`` is 4.5.
  ``0.333\ldots`` goes on as it began: it is a third.
- An inequality is not an interval: ``x>2`` is not ``(2,\infty)``, unless math-verify's default says so.

Everything else is math-verify's word.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from p2o_core.verify import measured, units
from p2o_core.verify.choices import Same, same_choice
from p2o_core.verify.grammar import tell_capitals_apart
from p2o_core.verify.notation import (
    TEXT,
    has_dots,
    in_latex,
    joins_numbers,
    plain_mathematics,
    plain_numbers,
    same_dots,
)
from p2o_core.verify.spelling import whole_and_part
from p2o_core.verify.statements import contradict, same_by_name, same_ratio, same_under_conditions, split_list
from p2o_core.verify.symbols import GREEK, both_signs, own_names
from p2o_core.verify.times import same_date
from p2o_core.verify.values import DIGITS, exact, same_number, same_numbers_inside

REMEMBERED = 512
"""Parsed values a worker keeps."""

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|[{}]")
_THOUSANDS = re.compile(r"\A-?\d{1,3}(?:(?:,|\{,\}|['’])\d{3})+(?:\.\d+)?\Z")
_DECIMAL = re.compile(r"\A-?(?:\d+(?:\.\d*)?|\.\d+)\Z")
_FIGURE = re.compile(
    r"\\(?:triangle|angle|Delta|square|measuredangle)(?![a-zA-Z])|[\s{}]|\\(?:text|mathrm|overline)(?=\{)"
)
_NAMED_NUMBER = re.compile(
    rf"\A([a-zA-Z](?:_\{{?\w\}}?)?'*|\\(?:{GREEK})|[a-zA-Z] ?\(-?\d+\)) *= *"
    r"(?:[-+\d.,/ ^{}()e]|\\(?:frac|sqrt|pi|times|cdot)(?![a-zA-Z]))+\Z"
)
_SYMMETRIC = re.compile(r"(\\(?:gcd|lcm)) ?[({]([^(){}]*)[)}]")
_OUTER = re.compile(r"\A(?:\(|\[|\\\{)(.*?)(?:\)|\]|\\\})\Z")
_UNITS = re.compile(r"%|\\text|\\circ")
_AS_WRITTEN = re.compile(r"\\(?:gcd|lcm) ?[({][^(){}]*[a-zA-Z]|!!")
"""What sympy would compute as if letters were polynomials, and what it does not know."""
_WORD = re.compile(r"[A-Za-z][a-z]+|[A-Z]{3,}|NO")
_AND = re.compile(r" ?\\text *\{ *and *\} ?| and ")


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{…}`` whose braces are balanced, None when there is none.

    >>> last_boxed("so \\\\boxed{\\\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    """
    opened: list[tuple[int, bool]] = []  # where its content starts, and whether it is a box
    last: tuple[int, int] | None = None
    for token in _BOX_OR_BRACE.finditer(text):  # one pass: a text of boxes would make one pass a box quadratic
        if token[0] != "}":
            opened.append((token.end(), token[0] != "{"))
        elif opened:
            start, box = opened.pop()
            if box and (last is None or start > last[0]):
                last = (start, token.start())
    return None if last is None else text[last[0] : last[1]].strip()


def equivalent(answer: str, gold: str) -> bool:
    """Whether the answer is right. Both as they stand in a box; raises what latex2sympy and sympy raise."""
    ours, theirs = in_latex(answer), in_latex(gold)
    if not _squeezed(ours) or not _squeezed(theirs) or contradict(answer, gold):
        return False
    if _squeezed(ours) == _squeezed(theirs) or "" != _words(ours) == _words(theirs):
        return True
    ours, theirs = (whole_and_part(ours, theirs), whole_and_part(theirs, ours))
    for look in (same_choice, same_under_conditions, same_by_name, same_ratio):
        said = look(ours, theirs, equivalent)
        if said is not None:
            return said
    if has_dots(ours) or has_dots(theirs):
        return _same_lists(ours, theirs)
    return not joins_numbers(ours) and not joins_numbers(theirs) and _same_sides(ours, theirs)


def _same_sides(ours: str, theirs: str) -> bool:
    """Numbers with their units, formulas, and lists of them."""
    mine, gold = measured.split(ours), measured.split(theirs)
    if _same_measured(mine, gold) or ((mine.unit or gold.unit) and _same_letters(ours, theirs)):
        return True
    bags = [_members(side) for side in (ours, theirs)]
    ambiguous = _UNITS.search(ours + theirs) or _THOUSANDS.match(ours) or _THOUSANDS.match(theirs)  # 100,200
    return 1 < len(bags[0]) == len(bags[1]) and ambiguous is not None and _same_bags(bags[0], bags[1], equivalent)


def _same_letters(ours: str, theirs: str) -> bool:
    r"""Where both have the same letters, what was taken for a unit is a variable: ``\frac12 m`` and ``\frac m2``."""
    if "\\text" in ours + theirs:
        return False
    mine, gold = (re.sub(r"\\[a-zA-Z]+|[^a-zA-Z]", "", side) for side in (ours, theirs))
    return 0 < len(mine) < 4 and mine == gold and _same_value(_core(ours), _core(theirs))


def readable(answer: str) -> bool:
    """Whether latex2sympy makes something of it."""
    return bool(_parsed(_core(measured.split(in_latex(answer)).value)))


def _same_measured(ours: measured.Measured, theirs: measured.Measured) -> bool:
    time = measured.same_time(ours, theirs)
    time = same_date(ours.value, theirs.value) if time is None else time
    if time is not None:
        return time
    ratio = units.ratio(ours.unit, theirs.unit)
    mine, other = _core(ours.value), _core(theirs.value)
    if ratio is None or not mine or not other:
        return False
    (mine, base), (other, another) = measured.based(mine), measured.based(other)
    if base or another:  # one on one side only is no error, like a unit
        return (not base or not another or base == another) and mine.lower() == other.lower()
    if _same_value(_scaled(mine, ratio), other):
        return True
    hundredth = Fraction(1, 100)
    percent = tuple(side.unit is not None and side.unit.name == units.PERCENT for side in (ours, theirs))
    if percent == (True, False):
        return _same_value(_scaled(mine, hundredth), other)
    return percent == (False, True) and _same_value(mine, _scaled(other, hundredth))


def _same_value(mine: str, gold: str) -> bool:
    if _squeezed(_sorted(mine)) == _squeezed(_sorted(gold)):
        return True
    if _DECIMAL.match(mine) and _DECIMAL.match(gold):
        return Fraction(mine) == Fraction(gold)
    written = _AS_WRITTEN.search(mine) or _AS_WRITTEN.search(gold)
    if written or _other_name(mine, gold) or _contradicts_itself(mine):
        return False
    bags = [_members(side) for side in (mine, gold)]
    if any(len(set(bag)) < len(bag) for bag in bags):
        return _same_bags(bags[0], bags[1], _same_value)
    return _same_expression(_parsed(mine), _parsed(gold))


def _sorted(value: str) -> str:
    """``\\gcd(n, m)`` as ``\\gcd(m,n)``."""
    return _SYMMETRIC.sub(lambda match: f"{match[1]}({','.join(sorted(re.split(' *, *', match[2].strip())))})", value)


def _same_expression(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether what latex2sympy made of them is the same: math-verify says so and no number contradicts."""
    if not ours or not theirs:
        return False
    number = same_number(ours[0], theirs[0])
    if number is not None:
        return number
    from math_verify import verify

    return any(
        verify([right], [said], float_rounding=DIGITS, numeric_precision=DIGITS, timeout_seconds=None)
        and same_numbers_inside(said, right)
        for said in ours
        for right in theirs
    )


def _other_name(mine: str, gold: str) -> bool:
    """Words are compared as text, not as products of letters, and ``x=6`` is not ``y=6``."""
    words = [_FIGURE.sub("", side) for side in (mine, gold)]
    if all(word.isascii() and word.isalpha() for word in words):
        return any(sum(letter.isupper() for letter in word) > 1 or len(word) > 3 for word in words)
    names = [_NAMED_NUMBER.match(side) for side in (mine, gold)]
    return all(names) and len({match[1] for match in names if match is not None}) > 1


def _contradicts_itself(value: str) -> bool:
    """``x=5=6``."""
    numbers = {Fraction(part.strip()) for part in value.split("=") if _DECIMAL.match(part.strip())}
    return len(numbers) > 1


def _members(value: str) -> list[str]:
    """The members of a list without brackets; the value itself when it is none."""
    value = _AND.sub(",", value)
    if "," not in value or (value[0] in "([\\{" and not value.startswith("\\frac")):
        return [value]
    return [_squeezed(member) for member in split_list(value)]


def _same_bags(ours: list[str], theirs: list[str], same: Same) -> bool:
    """``1, 2, 2`` is not ``1, 1, 2``: in a list without braces, repetition counts."""
    rest = list(theirs)
    for mine in ours:
        match = next((gold for gold in rest if same(mine, gold)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def _core(value: str) -> str:
    """A value in plain LaTeX, without separators of thousands."""
    value = value.strip()
    if _THOUSANDS.match(value):
        value = re.sub(r"\{,\}|[,'’]", "", value)
    return both_signs(own_names(plain_mathematics(plain_numbers(value)))).strip()


def _scaled(value: str, ratio: Fraction) -> str:
    if ratio == 1:
        return value
    return f"\\frac{{{ratio.numerator}}}{{{ratio.denominator}}} \\cdot ({value})"


@lru_cache(maxsize=REMEMBERED)
def _parsed(value: str) -> list[Any]:
    """What latex2sympy makes of it and the text itself; empty when it makes nothing. Parsing is most of a verdict's
    time, a group's rollouts share their gold answer, and a wrong answer is asked for twice."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    tell_capitals_apart()
    # units are off: they have been taken off by name, and math-verify would take letters of formulas for some
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = LatexExtractionConfig(normalization_config=normalization)
    return [exact(said) for said in parse(f"\\boxed{{{value}}}", [config], parsing_timeout=None)]


def _same_lists(ours: str, theirs: str) -> bool:
    """Member by member, dots against dots."""
    if _squeezed(same_dots(ours)) == _squeezed(same_dots(theirs)):
        return True
    lists = [_OUTER.sub(r"\1", same_dots(text).strip()).split(",") for text in (ours, theirs)]
    mine, gold = ([member.strip() for member in members] for members in lists)
    if len(mine) != len(gold) or not all(has_dots(text) for text in (ours, theirs)):
        return False
    if len(mine) == 1:  # 3.14… may go on in any way
        return False
    return all(
        _squeezed(one) == _squeezed(other) or (not has_dots(one) and not has_dots(other) and equivalent(one, other))
        for one, other in zip(mine, gold, strict=True)
    )


def _words(text: str) -> str:
    """Words alone, in singular, blank for anything else: ``no solution`` and ``There are no solutions``."""
    plain = re.sub(TEXT, r"\1", text).strip(" .")
    if not re.fullmatch(r"[A-Za-z]{2,}(?: +[A-Za-z]{2,})+", plain):
        return ""
    plain = re.sub(r"\Athere (?:is|are|exists?) | exists?\Z", "", " ".join(plain.lower().split()))
    return re.sub(r"(?<=[a-z]{3}[a-rt-z])s\b", "", plain)


def _squeezed(text: str) -> str:
    """Without what changes looks only. A space between digits stays: ``1 23`` is not ``123``."""
    plain = re.sub(TEXT, r"\1", text)
    plain = re.sub(r"\\[dtc](?=frac)", r"\\", plain)
    plain = re.sub(r"(?<![\d.]) | (?![\d.])|\$", "", re.sub(r"\s+", " ", plain))
    plain = re.sub(r"\A\((\w)\)\Z", r"\1", plain)
    if not has_dots(plain):
        plain = plain.strip(".")
    return plain.lower() if _WORD.fullmatch(plain) else plain  # East is east
