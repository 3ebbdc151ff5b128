r"""An answer taken apart: its number, and the unit, currency, percent sign or half of the day beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from p2o_core.verify.notation import TEXT
from p2o_core.verify.times import MERIDIEMS, same_clock, split_time
from p2o_core.verify.units import MARKS, PERCENT, SPELLINGS, Unit, currency, differ, named, pint_ratio

_POWERS_OF_TEN = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7, "百": 2, "千": 3,
    "万": 4, "萬": 4, "亿": 8, "億": 8,
}  # fmt: skip
_MULTIPLES = {word: rf"\times 10^{{{power}}}" for word, power in _POWERS_OF_TEN.items()}
_MULTIPLES |= {"dozen": r"\cdot 12", "gross": r"\cdot 144"}
_PARTS = {
    "half": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
_MULTIPLES |= {word: rf"\cdot \frac{{1}}{{{part}}}" for word, part in _PARTS.items()}
"""Words that are factors. A unit may be missing on one side, these may not: ``5 dozen`` is 60."""
_MATHEMATICS = re.compile(
    r"(?:not|never|impossible|pi|sin|cos|tan|cot|csc|log|ln|exp|sqrt|and|or|mod|inf|oo|to|if|for|when|where|base|arc\w+|times|alpha|beta|gamma"
    r"|delta|theta|lambda|mu|phi|psi|omega|sigma|rho|tau|eta|xi)\Z"
)

_SIGN_BEFORE = re.compile(
    r"\A(?P<minus>-?) *(?:(?P<sign>\\?\$|[¢€£¥₹₽₩])|\\text *\{ *(?P<in_text>\\?\$|[¢€£¥₹₽₩]) *\}"
    r"|(?P<code>US ?\\?\$|USD|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?)(?![a-zA-Z])) *(?=[\d.\\(-])"
)
_SIGN_AFTER = re.compile(r"(?<=[\d}]) *(?:\\text *\{ *)?(\\?\$|[¢€£¥₹₽₩])(?: *\})?\Z")
_PERCENT_AFTER = re.compile(r" *(?:\\?%|\\(?:text|mathrm)\{ *(?:\\?%|per ?cent) *\}|(?<![a-zA-Z])(?:per ?cent|pct))\Z")
_DEGREES_AFTER = re.compile(r" *(?:\^ *\{? *\\circ *\}?|\\degree) *(?:\{?(?:\\(?:text|mathrm) *\{)? *([CFK]) *\}*)?\Z")
_WRITTEN = [
    (re.compile(pattern), into)
    for pattern, into in (
        (r"(\\(?:mathrm|text)\{[^{}]*)\^ ?\{ ?(-?\d) ?\}", r"\1^\2"),
        (rf"\\[dt]?frac *\{{ *{TEXT} *\}} *\{{ *{TEXT} *((?:\^\d)?) *\}}\Z", r"\\text{\1/\2\3}"),
        (r"\\(?:mathrm|text) ?\{ ?\\[dt]?frac\{([a-zA-Z]+)\}\{([a-zA-Z]+(?:\^\d)?)\} ?\}\Z", r"\\text{\1/\2}"),
        (r"(?<=\d) \\[dt]?frac\{(k?m|cm|ft|mi)\}\{(s|h|s\^2|hr)\}\Z", r" \\text{\1/\2}"),
        (r"/ ?\( ?(\w+)(?: |\*| ?\\cdot ?)(\w+) ?\)", r"/\1/\2"),
        (r"(?<=[\d} ])[(\[] *([a-zA-Z]{2,}|\\text\{[^{}]*\}) *[)\]]\Z", r"\1"),
        (r"\\mu *(?:\\(?:text|mathrm)\{ *([a-zA-Z]+) *\}|([a-zA-Z]+))\Z", r"u\1\2"),
        (r"(?<=[\d} ])(k|M|m)? ?\\Omega ?\Z", r" \1ohm"),
    )
]
"""Units as formulas write them, and as words."""
_IN_TEXT = TEXT.replace("([^{}]*)", "[^{}]*")
_POWER = r"(?: *\^ *(?:\{ *-?\d *\}|-?\d))?"
_WORD = rf"(?:{_IN_TEXT}{_POWER}|[^\W\d_]+\.?{_POWER})"
_UNIT_AFTER = re.compile(
    rf"(?:(?<=[\d}})\].!\s])|(?=\\)) ?(?P<unit>{_WORD}(?:(?: ?(?:/|\\cdot(?![a-zA-Z])|\*) ?| |(?=\\)){_WORD}){{0,9}})\Z"
)
_TWO_UNITS = re.compile(
    rf"(?P<minus>-?)(?P<first>\d+) *(?P<large>{_IN_TEXT}|[a-zA-Z]+\.?|') *(?:and|,|\\text *\{{ *and *\}})? *"
    rf"(?P<second>\d+(?:\.\d+)?) *(?P<small>{_IN_TEXT}|[a-zA-Z]+\.?|''|\")\Z"
)
_MARK_AFTER = re.compile(r"\A(-?[\d./ ]*\d) *('{1,2}|\")\Z")
_NUMBER = re.compile(r"\d|\\(?:pi|sqrt|[dt]?frac)(?![a-zA-Z])")
_ANOTHER_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_PLAIN_NUMBER = re.compile(r"(?<=\d)e(?=[-+\d])|[-+\d.,/ ^{}()]|\\[dt]?frac|\\times|\\cdot|\\sqrt|\\pi")


_BASE = re.compile(
    r"(?<=[\dA-Z)}]) *(?:_ *\{? *|(?=\(?base)|(?=\\text *\{ *\(? *base))"
    r"(?:\\(?:text|mathrm) *\{ *)?\(? *(?:base *\}? *)?"
    r"(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen) *\)?[ })]*\Z"
)
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "twelve": "12", "sixteen": "16",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """An answer's number, in LaTeX as it was written, and its unit, None for none."""

    value: str
    unit: Unit | None = None


def split(text: str) -> Measured:
    r"""Take the unit off an answer that :func:`p2o_core.verify.notation.in_latex` has written.

    >>> split("\\$1.5\\text{ million}"), split("60 km/h").value
    (Measured(value='1.5\\times 10^{6}', unit=Unit(name='dollar', known=True, rest='')), '60')
    """
    before: Unit | None = None
    if (match := _SIGN_BEFORE.match(text)) is not None:
        before = currency(match["sign"] or match["in_text"] or match["code"])
        text = re.sub(r"(?<=\d) ?/ ?(?=[a-z]{2,}\Z)", " per ", match["minus"] + text[match.end() :])
    elif (match := _SIGN_AFTER.search(text)) is not None:
        before, text = currency(match[1]), text[: match.start()]
    elif (marked := _marked(text)) is not None:
        return marked
    value, words = _words_after(text)
    value, words = _multiplied(value, words)
    if before is not None:
        return Measured(value, Unit(before.name, before.known, " ".join(words).lower()) if words else before)
    return Measured(value, named(words))


def _marked(text: str) -> Measured | None:
    """What has a percent sign, degrees, a half of the day, two units or a stroke for feet behind it."""
    if (match := _PERCENT_AFTER.search(text)) is not None:
        return Measured(text[: match.start()].strip(), Unit(PERCENT))
    if (match := _DEGREES_AFTER.search(text)) is not None:
        scale = {"C": "degree_Celsius", "F": "degree_Fahrenheit", "K": "kelvin"}.get(match[1] or "", "degree")
        return Measured(text[: match.start()].strip(), Unit(scale))
    if (time := split_time(text)) is not None:
        return Measured(time[0], Unit(time[1], rest=time[2]))
    if (match := _MARK_AFTER.match(text)) is not None:
        return Measured(match[1], named([match[2]]))
    return _compound(text)


def based(value: str) -> tuple[str, str]:
    r"""A number's digits and its base, blank for none: ``101_{\text{two}}``, ``(101)_2``, ``101 base 2``."""
    match = _BASE.search(value)
    digits = re.sub(r"\\(?:text|mathrm)|[{}() ]", "", value[: match.start()]) if match is not None else ""
    if match is None or not re.fullmatch(r"-?\d[\dA-Fa-f]*|[A-Fa-f][\dA-Fa-f]+|\d*\.\d+", digits):
        return value, ""
    return digits, _BASES.get(match[1], match[1])


def same_time(one: Measured, other: Measured) -> bool | None:
    """Whether two times of day are the same; None where neither says a.m. or p.m., or one is no time."""
    names = [side.unit.name if side.unit is not None else None for side in (one, other)]
    halves = [name if name in MERIDIEMS else None for name in names]
    if halves == [None, None]:
        return None
    if any(side.unit is not None and half is None for side, half in zip((one, other), halves, strict=True)):
        return False  # 5 nm is not 5 pm
    if one.unit is not None and other.unit is not None and differ(one.unit.rest, other.unit.rest):
        return False
    return same_clock(one.value, other.value, (halves[0], halves[1]))


def _compound(text: str) -> Measured | None:
    r"""``5 ft 6 in`` as one number of the first unit; None where there are no two units of one kind."""
    match = _TWO_UNITS.match(text)
    if match is None:
        return None
    large, small = (named([re.sub(TEXT, r"\1", match[place]).strip(" {}.")]) for place in ("large", "small"))
    if large is None or small is None or not large.known or not small.known:
        return None
    if large.name in MARKS or small.name in MARKS:
        large, small = (Unit(MARKS.get(unit.name, (unit.name,))[0]) for unit in (large, small))
    share = pint_ratio(small.name, large.name)
    if share is None or not 0 < share < 1:
        return None
    total = Fraction(match["first"]) + Fraction(match["second"]) * share
    return Measured(f"{match['minus']}{total}", large)


def _words_after(text: str) -> tuple[str, list[str]]:
    """The text without its last words, and these as :func:`p2o_core.verify.units.named` reads them."""
    if "\\int" in text:  # dx is no unit
        return text, []
    for pattern, into in _WRITTEN:
        text = pattern.sub(into, text)
    match = _UNIT_AFTER.search(text)
    if match is None:
        return _other_script(text)
    value, unit = text[: match.start()].strip(), match["unit"]
    written = re.sub(TEXT, r" \1 ", unit).replace("\\cdot", "*").strip()
    plain = not unit.startswith("\\")
    if not _NUMBER.search(value) or any(_MATHEMATICS.match(word) for word in re.findall(r"[a-zA-Z]+", written)):
        return text, []
    if _ANOTHER_WORD.search(re.sub(r"\\[a-zA-Z]+", "", value)):  # 5 hours and 20 minutes
        return text, []
    words = re.sub(r" *([/*^]) *", r"\1", written.replace("{", "").replace("}", "")).split()
    joined = match.start("unit") > 0 and text[match.start("unit") - 1] != " "
    return (text, []) if plain and _variables(written, words, value, joined) else (value, words)


def _variables(written: str, words: list[str], value: str, joined: bool) -> bool:
    """Whether one to three letters behind a value, ``joined`` without a space, are factors: 2x, 3xy, 5nm^2."""
    if re.fullmatch(r"[a-zA-Z](?: *\^.*)?", written):
        return written[0] not in "mgshlLNJWVAKd" or _PLAIN_NUMBER.sub("", value) != ""
    if not re.fullmatch(r"[a-zA-Z]{2,3}(?: ?\^.*)?", written) or not (joined or len(written) < 3 or "^" in written):
        return False
    unit = named(words)
    return unit is None or not unit.known


def _multiplied(value: str, words: list[str]) -> tuple[str, list[str]]:
    """The value with the factor that its first word is: ``5 dozen eggs``, ``5万元``; but 5千米 are kilometres."""
    if not words:
        return value, words
    first, rest = words[0], words[1:]
    if first[0] in _MULTIPLES and first not in SPELLINGS:
        first, rest = first[0], [*filter(None, [first[1:]]), *rest]
    singular = {"halves": "half", "gross": "gross"}.get(first, first.removesuffix("s"))
    return (value + _MULTIPLES[singular], rest) if singular in _MULTIPLES else (value, words)


def _other_script(text: str) -> tuple[str, list[str]]:
    """Chinese, Japanese and Cyrillic words need no space: 8元."""
    match = re.search(r"(?<=[\d})]) *([^\W\d_a-zA-Z]+)\Z", text)
    return (text, []) if match is None else (text[: match.start()], [match[1]])
