"""Whether two answers say the same, where math-verify says no: signs and units that stand on one side only.

As the Qwen2.5-Math evaluation sees it, a percent sign, a unit, a currency sign or a thousands separator on one side
does not make an answer wrong. Numbers themselves are never loosened: what is left after taking the signs off has to be
equal exactly, for math-verify or as text. And some that math-verify lets pass are no equals (:func:`contradict`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

Same = Callable[[str, str], bool]

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|[{}]")
_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"
_DEGREE = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°|\\(?:text|mathrm)\{\s*degrees?\s*\})\s*\Z")
_PERCENT = re.compile(r"\s*(?:\\?%|\\(?:text|mathrm)\{\s*percent\s*\}|percent)\s*\Z")
_CURRENCY = re.compile(r"\A\s*(?:\\\$|\$|€|£|\\text\{\s*\\?\$\s*\})\s*")
_UNIT = re.compile(
    rf"\A(?P<core>.*?[\d}})a-z])\s*(?:\\[,;:! ]\s*)*(?:{_TEXT}(?P<power>\s*\^\s*\{{?\s*[23]\s*\}}?)?"
    r"|(?<=[\d}\s])(?P<words>[a-zA-Z]{2,}(?:[ .][a-zA-Z]+)*\.?(?:\s*\^\s*\{?[23]\}?)?))\s*\Z",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"\A-?\d{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!)\d{3})+(?:\.\d+)?\Z")
_SEPARATOR = re.compile(r"\{,\}|\\[,!]|,")
_DECIMAL = re.compile(r"\A-?(?:\d+(?:\.\d*)?|\.\d+)\Z")
_BASE = re.compile(r"\d_\s*\{?\s*(?:\\text\{\s*)?(\d+)")
_POWER = re.compile(r"\^([23])\Z")
_DOLLAR_WORDS = ("dollar", "dollars", "usd")


@dataclass(frozen=True)
class Bare:
    """An answer without its signs: what is left, the unit (blank for none), and whether it was a percentage."""

    core: str
    unit: str
    percent: bool


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


def bare(answer: str) -> Bare:
    """Take currency, degree, percent, unit and thousands separators off."""
    core = answer.strip().rstrip(".").strip()
    if len(core) > 1 and core[0] == core[-1] == "$":
        core = core[1:-1].strip()
    unit = ""
    if (match := _CURRENCY.match(core)) is not None:
        core, unit = core[match.end() :], "$"
    percent = _PERCENT.search(core) is not None
    core = _PERCENT.sub("", core)
    if _DEGREE.search(core):
        core, unit = _DEGREE.sub("", core), "degree"
    elif not percent and not unit and (match := _UNIT.match(core)) is not None and re.search(r"\d", match["core"]):
        words = " ".join(part for part in (match[2] or match["words"] or "", match["power"] or "") if part)
        core, unit = match["core"].strip(), _unit_name(words)
    core = core.strip()
    if _THOUSANDS.match(core):
        core = _SEPARATOR.sub("", core)
    return Bare(core, unit, percent)


def equivalent(answer: str, gold: str, same: Same) -> bool:
    """``same`` compares two bare answers mathematically; it is asked only when signs were taken off somewhere."""
    ours, theirs = bare(answer), bare(gold)
    if _squeezed(ours.core) == "" or _squeezed(theirs.core) == "":
        return False
    if ours.unit and theirs.unit and ours.unit != theirs.unit:
        return False
    if _squeezed(ours.core) == _squeezed(theirs.core):
        return True
    if ours.percent != theirs.percent:
        share, other = (ours, theirs) if ours.percent else (theirs, ours)
        if same(f"\\frac{{{share.core}}}{{100}}", other.core):
            return True
    taken_off = (ours.core, theirs.core) != (answer.strip(), gold.strip())
    return taken_off and same(ours.core, theirs.core)


def contradict(answer: str, gold: str) -> bool:
    """What math-verify lets pass and is another answer all the same: decimals that differ behind the sixth place,
    numbers of another base, squares for cubes."""
    ours, theirs = bare(answer), bare(gold)
    decimals = ours.percent == theirs.percent and all(_DECIMAL.match(side.core) for side in (ours, theirs))
    if decimals and Fraction(ours.core) != Fraction(theirs.core):
        return True
    bases = [match[1] if (match := _BASE.search(side.core)) else "" for side in (ours, theirs)]
    if all(bases) and bases[0] != bases[1]:
        return True
    powers = [match[1] if (match := _POWER.search(side.unit)) else "" for side in (ours, theirs)]
    return bool(ours.unit and theirs.unit) and powers[0] != powers[1]


def _unit_name(words: str) -> str:
    name = re.sub(r"[\s{}.\\]", "", words).lower()
    if name in _DOLLAR_WORDS:
        return "$"
    return name.removesuffix("s") if len(name) > 3 else name


def _squeezed(text: str) -> str:
    """Without what changes looks only: LaTeX's text wrappers, sizes of brackets and spaces."""
    plain = re.sub(_TEXT, r"\1", text)
    plain = re.sub(r"\\left|\\right|\\[dt](?=frac)|\\[,!;: ]|[\s$]", "", plain)
    return re.sub(r"\A\((\w)\)\Z", r"\1", plain).strip(".").lower()
