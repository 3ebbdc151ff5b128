"""Other spellings of a gold answer whose value is known without the verifier: what a policy might write instead.

Numbers are spelt by :class:`fractions.Fraction`, formulas by sympy's printers, the rest by what LaTeX and Unicode have
two signs for. ``spelt`` yields ``(kind, text)``; every text says the same as the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from tasks.problems.cells import Answers

_INTEGER = re.compile(r"-?\d+")
_GROUPED = re.compile(r"-?\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*\\times\s*10\^\{?|e)(-?\d+)\}?")
_WORD = re.compile(r"\\text\{\s*\(?([A-Za-z]+)\)?\s*\}")
_LIST = re.compile(r"[^,()\[\]{}=]+(?:,[^,()\[\]{}=]+)+")
_UNPRINTABLE = re.compile(
    r"[=,%_$!<>]|(?<!\\)\b[a-zA-Z]{3,}|[A-Z]|\de-?\d|"
    r"\\(?:text|begin|prime|[lr]floor|[lr]ceil|d?binom|in|cup|pm|mp|le|ge|ldots|cdots|circ)(?![a-z])"
)
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def spelt(answer: str, answers: Answers | None = None) -> Iterator[tuple[str, str]]:
    """Spellings other than ``answer`` itself, each once. ``answers`` is ``set`` for a data set whose lists have no
    order."""
    seen = {answer}
    for kind, text in _all(answer.strip(), answers):
        if text not in seen:
            seen.add(text)
            yield kind, text


def _all(answer: str, answers: Answers | None) -> Iterator[tuple[str, str]]:
    value = _value(answer)
    if value is not None:
        yield from _number(value, answer)
    elif (scientific := _SCIENTIFIC.fullmatch(answer)) is not None:
        yield "e-notation", f"{scientific[1]}e{scientific[2]}"
        yield "scientific", f"{scientific[1]} \\times 10^{{{scientific[2]}}}"
        yield "other multiplication sign", f"{scientific[1]} \\cdot 10^{{{scientific[2]}}}"
        yield "unicode", f"{scientific[1]}×10{scientific[2].translate(_SUPERSCRIPTS)}"
    elif (word := _WORD.fullmatch(answer)) is not None:
        yield "word without \\text", word[1]
        yield "bold word", f"\\textbf{{{word[1]}}}"
    elif answers == "set" and _LIST.fullmatch(answer):
        parts = [part.strip() for part in answer.split(",")]
        yield "set in another order", ", ".join(reversed(parts))
        yield "set in braces", f"\\{{{', '.join(parts)}\\}}"
        yield "set with and", f"{', '.join(parts[:-1])} \\text{{ and }} {parts[-1]}"
    elif "\\circ" in answer:
        yield "degree sign", re.sub(r"\s*\^\s*\{?\s*\\circ\s*\}?", "°", answer)
    elif "\\" in answer or re.search(r"[\^a-z]", answer):
        yield from _formula(answer)


def _value(answer: str) -> Fraction | None:
    """The value of a plain number or fraction."""
    if _GROUPED.fullmatch(answer):
        return Fraction(re.sub(r"[^\d-]", "", answer))
    if _INTEGER.fullmatch(answer) or _DECIMAL.fullmatch(answer):
        return Fraction(answer)
    if (match := _FRACTION.fullmatch(answer)) is not None and int(match[3]):
        return Fraction(int(match[2]), int(match[3])) * (-1 if match[1] else 1)
    return None


def _number(value: Fraction, answer: str) -> Iterator[tuple[str, str]]:
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    if bottom == 1:
        yield "with .0", f"{sign}{top}.0"
        yield "as a fraction", f"{sign}\\frac{{{3 * top}}}{{3}}"
        if top > 999:
            yield "thousands, comma", f"{sign}{top:,}"
            yield "thousands, {,}", f"{sign}{top:,}".replace(",", "{,}")
            yield "thousands, thin space", f"{sign}{top:,}".replace(",", "\\,")
            digits = str(top).rstrip("0")
            mantissa = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
            yield "scientific", f"{sign}{mantissa} \\times 10^{{{len(str(top)) - 1}}}"
            yield "e-notation", f"{sign}{mantissa}e{len(str(top)) - 1}"
    else:
        yield "a/b", f"{sign}{top}/{bottom}"
        yield "\\frac", f"{sign}\\frac{{{top}}}{{{bottom}}}"
        yield "\\dfrac", f"{sign}\\dfrac{{{top}}}{{{bottom}}}"
        yield "not reduced", f"{sign}\\frac{{{2 * top}}}{{{2 * bottom}}}"
        if top > bottom:
            yield "mixed number", f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}"
            yield "mixed number with a space", f"{sign}{top // bottom} {top % bottom}/{bottom}"
        if (decimal := _terminating(abs(value))) is not None:
            yield "decimal", sign + decimal
            yield "decimal with a zero behind", f"{sign}{decimal}0"
    yield "bold", f"\\mathbf{{{answer}}}"


def _terminating(value: Fraction) -> str | None:
    """The decimal of at most twelve places that is the value."""
    places = next((n for n in range(1, 13) if 10**n % value.denominator == 0), None)
    if places is None:
        return None
    digits = str(value * 10**places).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


def _formula(answer: str) -> Iterator[tuple[str, str]]:
    plain = re.sub(r"\\(?:left|right)", "", answer)
    yield "without \\left and spaces", re.sub(r"(?<![a-zA-Z\d])\s+|\s+(?![a-zA-Z\d])", "", plain)
    wide = re.sub(r"\\d?frac", r"\\tfrac", answer)
    yield "\\tfrac", wide
    unicode = re.sub(r"\\sqrt\{(\d+|\w)\}", r"√\1", answer)
    unicode = re.sub(r"\^(?:\{(\d+)\}|(\d))", lambda power: (power[1] or power[2]).translate(_SUPERSCRIPTS), unicode)
    unicode = re.sub(r"\\pi(?![a-z])", "π", unicode)
    unicode = re.sub(r"\\infty(?![a-z])", "∞", unicode)
    yield "unicode", unicode
    yield from _printed(answer)


def _printed(answer: str) -> Iterator[tuple[str, str]]:
    """What sympy prints of a formula that is one expression. Left out: equations, lists, capital letters (read as small
    ones), and functions that sympy's text names as nobody would."""
    import sympy
    from math_verify import parse

    if _UNPRINTABLE.search(answer):
        return
    parsed = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not parsed or not isinstance(parsed[0], sympy.Expr):
        return
    value = parsed[0].doit()  # read as it stands, 6 - 5i is printed with a factor of -1
    if value.has(sympy.Float):  # no longer exact
        return
    yield "sympy's LaTeX", sympy.latex(value)
    yield "sympy's text", sympy.sstr(value)
