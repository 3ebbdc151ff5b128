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

from p2o_core.verify.times import MERIDIEMS

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
SPELLINGS = {
    "元": "yuan", "块": "yuan", "円": "yen", "米": "meter", "厘米": "centimeter", "毫米": "millimeter",
    "千米": "kilometer", "公里": "kilometer", "克": "gram", "千克": "kilogram", "公斤": "kilogram", "升": "liter",
    "秒": "second", "分钟": "minute", "小时": "hour", "天": "day", "周": "week", "年": "year", "度": "degree",
    "吨": "metric_ton", "平方厘米": "centimeter^2", "平方米": "meter^2", "立方厘米": "centimeter^3",
    "立方米": "meter^3", "小時": "hour", "時間": "hour", "分": "minute", "美元": "dollar", "欧元": "euro",
    "日元": "yen", "мм": "millimeter", "см": "centimeter", "м": "meter", "км": "kilometer", "г": "gram",
    "кг": "kilogram", "с": "second", "мин": "minute", "ч": "hour", "л": "liter", "руб": "ruble", "градусов": "degree",
    "hrs": "hour", "mins": "minute", "secs": "second", "yrs": "year", "gm": "gram", "gms": "gram", "kms": "kilometer",
    "kmh": "kilometer/hour", "kmph": "kilometer/hour", "Rs": "rupee", "rs": "rupee", "deg": "degree", "ltr": "liter",
    "sq": "square", "cu": "cubic", "sec": "second", "ly": "light_year", "Dollars": "dollar", "rad": "radian",
}  # fmt: skip
"""Spellings that pint does not know."""
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
MARKS = {"'": ("foot", "arcminute"), "''": ("inch", "arcsecond")}


@dataclass(frozen=True)
class Unit:
    """A unit by pint's name, ``percent``, a meridiem, or, where ``known`` is false, words in singular.

    >>> named(["apples"])
    Unit(name='apple', known=False, rest='')
    """

    name: str
    known: bool = True
    rest: str = ""
    """Words behind a known unit: ``north`` of ``5 m north``."""


def ratio(one: Unit | None, other: Unit | None) -> Fraction | None:
    """How many of ``other`` one of ``one`` is; None when the two contradict each other.

    >>> ratio(Unit("meter"), Unit("centimeter")), ratio(Unit("meter"), Unit("second"))
    (Fraction(100, 1), None)
    """
    if one is None or other is None or one == other:
        return Fraction(1)
    if _opposite(one, other) or (one.known and other.known and differ(one.rest, other.rest)):
        return None
    if one.name == other.name or {one.name, other.name} == {"pound", "sterling"}:
        return Fraction(1)
    if {one.name, other.name} & {PERCENT, *MERIDIEMS}:
        return None
    if one.known and other.known:
        return _known_ratio(one.name, other.name)
    return _counted_ratio(one, other)


def _counted_ratio(one: Unit, other: Unit) -> Fraction | None:
    """``5 red apples`` are 5 apples, but not 5 green apples."""
    mine, theirs = (set(unit.name.split()) for unit in (one, other))
    if _power(one) != _power(other):  # one unit squared, and cubed
        return None
    mine, theirs = mine - _GENERAL, theirs - _GENERAL
    return Fraction(1) if mine <= theirs or theirs <= mine else None


def _known_ratio(one: str, other: str) -> Fraction | None:
    """``5'`` are feet or minutes of arc, as the other side has it."""
    readings = list(zip(MARKS.get(one, (one, one)), MARKS.get(other, (other, other)), strict=True))
    ratios = [pint_ratio(*reading) for reading in dict.fromkeys(readings)]
    if "degree" in (one, other):  # of arc, then
        return ratios[-1]
    return next((found for found in ratios if found is not None), None)


def _opposite(one: Unit, other: Unit) -> bool:
    """``5 fewer`` is not 5 more, nor 5 m north 5 m south."""
    mine, theirs = (set(f"{unit.name} {unit.rest}".split()) for unit in (one, other))
    return any(mine & words and theirs & words and not mine & theirs & words for words in _OPPOSITES)


def differ(one: str, other: str) -> bool:
    """Whether each has a word that the other lacks."""
    mine, theirs = (set(rest.split()) - _GENERAL for rest in (one, other))
    return not (mine <= theirs or theirs <= mine)


def _power(unit: Unit) -> str:
    return "".join(re.findall(r"(?:\^|\*\* )([23])\Z", unit.name))


def currency(sign: str) -> Unit:
    name = "$" if sign.endswith("$") else sign.lstrip("\\").rstrip(".")
    return Unit(_SIGNS[name]) if name in _SIGNS else named([name]) or Unit(name, known=False)


def named(words: list[str]) -> Unit | None:
    """The longest beginning that is a unit, otherwise the words themselves; None for no words."""
    if words and words[0].replace('"', "''") in MARKS:
        return Unit(words[0].replace('"', "''"))
    spelled = [SPELLINGS.get(word.rstrip(".,"), word.rstrip(".,()") or word).lstrip("(") for word in words]
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
def pint_ratio(one: str, other: str) -> Fraction | None:
    registry = _registry()
    if "degree_" in one + other:  # scales with another zero
        return None
    try:
        value = registry.Quantity(1.0, one).to(other).magnitude
    except Exception:  # of another dimension
        return None
    exact = Fraction(value).limit_denominator(10**6) if value >= 1 else 1 / Fraction(1 / value).limit_denominator(10**6)
    return exact if abs(float(exact) / value - 1) < 1e-12 else None
