r"""What stands beside a number: units, currencies, percent, a.m. and p.m., and words for what is counted.

The question names the unit, so one on one side only is no error. Two that contradict each other are:
``12\text{ m}`` is not ``12\text{ cm}``, though ``100\text{ cm}`` is ``1\text{ m}``. pint knows units and their ratios.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

from p2o_core.verify.notation import TEXT
from p2o_core.verify.times import MERIDIEMS, same_clock, split_time

if TYPE_CHECKING:
    from pint import UnitRegistry

PERCENT = "percent"

_NAMES = """
meter gram second minute hour day week month year decade century liter inch foot yard mile nautical_mile ounce pound
stone ton metric_ton gallon quart pint cup tablespoon teaspoon fluid_ounce acre hectare degree radian newton joule watt
pascal hertz volt ampere ohm coulomb farad tesla weber henry kelvin degree_Celsius degree_Fahrenheit mole electron_volt
calorie bar standard_atmosphere millimeter_Hg psi erg dyne angstrom parsec light_year knot astronomical_unit
mile_per_hour kilometer_per_hour horsepower cubic_centimeter bit byte lumen lux candela becquerel watt_hour kip
unified_atomic_mass_unit dollar cent euro sterling yuan yen rupee ruble won
"""
_MEASURES = frozenset(_NAMES.split())
"""Units of pint's that people measure in. Others turn words into units: to pint, "units" are micro-nits."""

_CURRENCIES = """
dollar = [USD] = USD = bucks
cent = dollar / 100
euro = [EUR] = EUR
sterling = [GBP] = GBP
yuan = [CNY] = CNY = RMB
yen = [JPY] = JPY
rupee = [INR] = INR
ruble = [RUB] = RUB = rouble
won = [KRW] = KRW
"""
_SIGNS = dict(zip("$¢€£¥₹₽₩", ("dollar", "cent", "euro", "sterling", "yen", "rupee", "ruble", "won"), strict=True))
_SPELLINGS = {
    "元": "yuan", "块": "yuan", "円": "yen", "米": "meter", "厘米": "centimeter", "毫米": "millimeter",
    "千米": "kilometer", "公里": "kilometer", "克": "gram", "千克": "kilogram", "公斤": "kilogram", "升": "liter",
    "秒": "second", "分钟": "minute", "小时": "hour", "天": "day", "周": "week", "年": "year", "度": "degree",
    "吨": "metric_ton", "平方厘米": "centimeter^2", "平方米": "meter^2", "立方厘米": "centimeter^3", "立方米": "meter^3",
    "小時": "hour", "時間": "hour", "分": "minute", "美元": "dollar", "欧元": "euro", "日元": "yen", "мм": "millimeter",
    "см": "centimeter", "м": "meter", "км": "kilometer", "г": "gram", "кг": "kilogram",
    "с": "second", "мин": "minute", "ч": "hour", "л": "liter", "руб": "ruble", "градусов": "degree",
    "hrs": "hour", "mins": "minute", "secs": "second", "yrs": "year", "gm": "gram", "gms": "gram", "kms": "kilometer",
    "kmh": "kilometer/hour", "kmph": "kilometer/hour", "Rs": "rupee", "rs": "rupee", "deg": "degree", "ltr": "liter",
    "sq": "square", "cu": "cubic", "sec": "second", "ly": "light_year", "Dollars": "dollar", "rad": "radian",
}  # fmt: skip
"""Spellings that pint does not know."""
_MULTIPLES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ANYTHING = """
people person unit item object thing time way piece total in only approximately approx about exactly each of the
altogether unit^2 unit^3
"""
_GENERAL = frozenset(_ANYTHING.split())
"""Words for anything that is counted; they contradict no other."""
_OPPOSITES = [
    frozenset(words.split())
    for words in (
        "more fewer less", "left right", "north south", "east west", "up down", "above below", "ago later from",
        "before after", "increase decrease", "increased decreased", "gain loss", "profit loss", "win loss", "off more",
        "wins losses", "clockwise counterclockwise anticlockwise", "n s", "e w", "heads tails", "first last",
    )
]  # fmt: skip
_MARKS = {"'": ("foot", "arcminute"), "''": ("inch", "arcsecond")}
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
_POWER = r"(?: *\^ *(?:\{ *-?\d *\}|-?\d))?"
_WORD = rf"(?:{TEXT.replace('([^{}]*)', '[^{}]*')}{_POWER}|[^\W\d_]+\.?{_POWER})"
_UNIT_AFTER = re.compile(
    rf"(?:(?<=[\d}})\].!\s])|(?=\\)) *(?P<unit>{_WORD}(?: *(?:/|\\cdot(?![a-zA-Z])|\*| )? *{_WORD})*)\Z"
)
_TWO_UNITS = re.compile(
    rf"(?P<first>-?\d+) *(?P<large>{TEXT.replace('([^{}]*)', '[^{}]*')}|[a-zA-Z]+\.?|') *(?:and|,|\\text *\{{ *and *\}})? *"
    rf"(?P<second>\d+(?:\.\d+)?) *(?P<small>{TEXT.replace('([^{}]*)', '[^{}]*')}|[a-zA-Z]+\.?|''|\")\Z"
)
_MARK_AFTER = re.compile(r"\A(-?[\d./ ]*\d) *('{1,2}|\")\Z")
_NUMBER = re.compile(r"\d|\\(?:pi|sqrt|[dt]?frac)(?![a-zA-Z])")
_ANOTHER_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_PLAIN_NUMBER = re.compile(r"(?<=\d)e(?=[-+\d])|[-+\d.,/ ^{}()]|\\[dt]?frac|\\times|\\cdot|\\sqrt|\\pi")


@dataclass(frozen=True)
class Unit:
    """A unit by pint's name, ``percent``, a meridiem, or, where ``known`` is false, words in singular.

    >>> split("12\\\\text{ apples}").unit
    Unit(name='apple', known=False, rest='')
    """

    name: str
    known: bool = True
    rest: str = ""
    """Words behind a known unit: ``north`` of ``5 m north``."""


@dataclass(frozen=True)
class Measured:
    """An answer's number, in LaTeX as it was written, and its unit, None for none."""

    value: str
    unit: Unit | None = None


def split(text: str) -> Measured:
    r"""Take the unit off an answer that :func:`p2o_core.verify.notation.in_latex` has written.

    >>> split("\\$1.5\\text{ million}"), split("60 km/h").value
    (Measured(value='1.5\\times 10^{6}', unit=Unit(name='dollar', known=True)), '60')
    """
    before: Unit | None = None
    if (match := _SIGN_BEFORE.match(text)) is not None:
        before = _currency(match["sign"] or match["in_text"] or match["code"])
        text = re.sub(r"(?<=\d) ?/ ?(?=[a-z]{2,}\Z)", " per ", match["minus"] + text[match.end() :])
    elif (match := _SIGN_AFTER.search(text)) is not None:
        before, text = _currency(match[1]), text[: match.start()]
    if before is None and (match := _PERCENT_AFTER.search(text)) is not None:
        return Measured(text[: match.start()].strip(), Unit(PERCENT))
    if before is None and (match := _DEGREES_AFTER.search(text)) is not None:
        scale = {"C": "degree_Celsius", "F": "degree_Fahrenheit", "K": "kelvin"}.get(match[1] or "", "degree")
        return Measured(text[: match.start()].strip(), Unit(scale))
    if (time := split_time(text)) is not None:
        return Measured(time[0], Unit(time[1], rest=time[2]))
    if before is None and (measured := _compound(text)) is not None:
        return measured
    if (match := _MARK_AFTER.match(text)) is not None:
        return Measured(match[1], _named([match[2]]))
    value, words = _words_after(text)
    if words and words[0] in _MULTIPLES:
        value = f"{value}\\times 10^{{{_MULTIPLES[words.pop(0)]}}}"
    if before is not None:
        return Measured(value, Unit(before.name, before.known, " ".join(words).lower()) if words else before)
    return Measured(value, _named(words))


def ratio(one: Unit | None, other: Unit | None) -> Fraction | None:
    """How many of ``other`` one of ``one`` is; None when the two contradict each other.

    >>> ratio(Unit("meter"), Unit("centimeter")), ratio(Unit("meter"), Unit("second"))
    (Fraction(100, 1), None)
    """
    if one is None or other is None or one == other:
        return Fraction(1)
    if _opposite(one, other) or (one.known and other.known and _differ(one.rest, other.rest)):
        return None
    if one.name in _MARKS or other.name in _MARKS:
        return _marked_ratio(one.name, other.name)
    if one.name == other.name:
        return Fraction(1)
    if {one.name, other.name} == {"pound", "sterling"}:
        return Fraction(1)
    if PERCENT in (one.name, other.name) or one.name in MERIDIEMS or other.name in MERIDIEMS:
        return None
    if one.known and other.known:
        return _pint_ratio(one.name, other.name)
    mine, theirs = (set(unit.name.split()) for unit in (one, other))
    if _power(one) != _power(other):  # one unit squared, and cubed
        return None
    mine, theirs = mine - _GENERAL, theirs - _GENERAL
    return Fraction(1) if mine <= theirs or theirs <= mine else None


def _marked_ratio(one: str, other: str) -> Fraction | None:
    """``5'`` are feet or minutes of arc, as the other side has it."""
    readings = list(zip(_MARKS.get(one, (one, one)), _MARKS.get(other, (other, other)), strict=True))
    ratios = [_pint_ratio(*reading) for reading in readings]
    if "degree" in (one, other):  # of arc, then
        return ratios[1]
    return next((found for found in ratios if found is not None), None)


def _opposite(one: Unit, other: Unit) -> bool:
    """``5 fewer`` is not 5 more, nor 5 m north 5 m south."""
    mine, theirs = (set(f"{unit.name} {unit.rest}".split()) for unit in (one, other))
    return any(mine & words and theirs & words and not mine & theirs & words for words in _OPPOSITES)


def _differ(one: str, other: str) -> bool:
    mine, theirs = (set(rest.split()) - _GENERAL for rest in (one, other))
    return not (mine <= theirs or theirs <= mine)


def same_time(one: Measured, other: Measured) -> bool | None:
    """Whether two times of day are the same; None where neither says a.m. or p.m., or one is no time."""
    halves = [side.unit.name if side.unit is not None and side.unit.name in MERIDIEMS else None for side in (one, other)]
    if halves == [None, None]:
        return None
    if any(side.unit is not None and half is None for side, half in zip((one, other), halves, strict=True)):
        return False  # 5 nm is not 5 pm
    if one.unit is not None and other.unit is not None and _differ(one.unit.rest, other.unit.rest):
        return False
    return same_clock(one.value, other.value, (halves[0], halves[1]))


def _power(unit: Unit) -> str:
    return "".join(re.findall(r"(?:\^|\*\* )([23])\Z", unit.name))


def _compound(text: str) -> Measured | None:
    r"""``5 ft 6 in`` as one number of the first unit; None where there are no two units of one kind."""
    match = _TWO_UNITS.match(text)
    if match is None:
        return None
    large, small = (_named([re.sub(TEXT, r"\1", match[place]).strip(" {}.")]) for place in ("large", "small"))
    if large is None or small is None or not large.known or not small.known:
        return None
    if large.name in _MARKS or small.name in _MARKS:
        large, small = (Unit(_MARKS.get(unit.name, (unit.name,))[0]) for unit in (large, small))
    share = _pint_ratio(small.name, large.name)
    if share is None or not 0 < share < 1:
        return None
    return Measured(str(Fraction(match["first"]) + Fraction(match["second"]) * share), large)


def _words_after(text: str) -> tuple[str, list[str]]:
    """The text without its last words, and these as :func:`_named` reads them."""
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
    bare_letter = plain and re.fullmatch(r"[a-zA-Z](?: *\^.*)?", written)
    if not _NUMBER.search(value) or any(_MATHEMATICS.match(word) for word in re.findall(r"[a-zA-Z]+", written)):
        return text, []
    if _ANOTHER_WORD.search(re.sub(r"\\[a-zA-Z]+", "", value)):  # 5 hours and 20 minutes
        return text, []
    if bare_letter and (written[0] not in "mgshlLNJWVAKd" or _PLAIN_NUMBER.sub("", value)):
        return text, []  # a variable
    return value, re.sub(r" *([/*^]) *", r"\1", written.replace("{", "").replace("}", "")).split()


def _other_script(text: str) -> tuple[str, list[str]]:
    """Chinese, Japanese and Cyrillic words need no space: 8元."""
    match = re.search(r"(?<=[\d})]) *([^\W\d_a-zA-Z]+)\Z", text)
    return (text, []) if match is None else (text[: match.start()], [match[1]])


def _currency(sign: str) -> Unit:
    name = "$" if sign.endswith("$") else sign.lstrip("\\").rstrip(".")
    return Unit(_SIGNS[name]) if name in _SIGNS else _named([name]) or Unit(name, known=False)


def _named(words: list[str]) -> Unit | None:
    """The longest beginning that is a unit, otherwise the words themselves; None for no words."""
    if words and words[0].replace('"', "''") in _MARKS:
        return Unit(words[0].replace('"', "''"))
    spelled = [_SPELLINGS.get(word.rstrip(".,"), word.rstrip(".,()") or word).lstrip("(") for word in words]
    spelled = _powers(" ".join(spelled)).split()
    for count in range(len(spelled), 0, -1):
        name = _in_pint(" ".join(spelled[:count]))
        if name is not None:
            return Unit(name, rest=" ".join(spelled[count:]).lower())
    singular = [re.sub(r"(?<=\w\w\w)s(?=\^|\Z)", "", word.lower()) for word in spelled if word]
    return Unit(" ".join(singular), known=False) if singular else None


def _powers(words: str) -> str:
    """``square meters`` as ``meters^2``, ``degrees Celsius`` as one unit."""
    words = re.sub(r"\bsquare (\w+)|(\w+) squared\b", lambda match: f"{match[1] or match[2]}^2", words)
    words = re.sub(r"\b[Dd]egrees? ([Cc]elsius|[Ff]ahrenheit|C|F)\b", _scale, words)
    words = re.sub(r"\blight[- ]years?\b", "light_year", words)
    return re.sub(r"\bcubic (\w+)|(\w+) cubed\b", lambda match: f"{match[1] or match[2]}^3", words)


def _scale(match: re.Match[str]) -> str:
    return "degree_Celsius" if match[1][0] in "cC" else "degree_Fahrenheit"


@cache
def _registry() -> UnitRegistry:
    from pint import UnitRegistry

    registry: UnitRegistry = UnitRegistry(on_redefinition="ignore")
    registry.load_definitions(_CURRENCIES.strip().splitlines())
    return registry


@cache
def _in_pint(words: str) -> str | None:
    """pint's name for a unit, like ``kilometer / hour``; None where these words are none that people measure in."""
    if len(words) > 40 or not re.fullmatch(r"[^\W\d]+(?:\^-?\d)?(?:(?:[ /*]| per )[^\W\d]+(?:\^-?\d)?)*", words):
        return None
    registry = _registry()
    for spelling in dict.fromkeys([words, words.lower()]):
        try:
            unit = registry.parse_units(spelling.replace("^", "**"))
        except Exception:  # pint raises what its tokenizer and its definitions raise; either way it knows no such unit
            continue
        bases = {base for name in unit._units for _, base, _ in registry.parse_unit_name(name)}
        if bases and bases <= _MEASURES | {name for name in unit._units if name in _MEASURES}:
            return str(unit)
    return None


@cache
def _pint_ratio(one: str, other: str) -> Fraction | None:
    registry = _registry()
    if "degree_" in one + other:  # scales with another zero
        return None
    try:
        value = registry.Quantity(1.0, one).to(other).magnitude
    except Exception:  # of another dimension
        return None
    exact = Fraction(value).limit_denominator(10**6) if value >= 1 else 1 / Fraction(1 / value).limit_denominator(10**6)
    return exact if abs(float(exact) / value - 1) < 1e-12 else None
