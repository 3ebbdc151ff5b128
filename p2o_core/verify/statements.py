r"""What an answer says besides its value: which name has it, when it holds, that it is denied.

Texts come from :func:`p2o_core.verify.notation.in_latex`. ``same`` says whether two values are the same.
"""

from __future__ import annotations

import re
from fractions import Fraction

from p2o_core.verify.choices import Same
from p2o_core.verify.notation import TEXT

_DENIED = re.compile(r"(?i)(?<![a-z\\])(?:not|isn['’]?t|aren['’]?t|never|wrong|incorrect|false)(?![a-z])")
_FORMULA = re.compile(r"[\d=^]|\\(?!text|mathrm|mbox)[a-zA-Z]|\A[a-zA-Z]\Z")
_BASE = re.compile(r"(?:\d|\\overline ?\{ ?\d+ ?\}) ?_ ?\{? ?(\d{1,2})(?!\d)")
_PERCENT, _CURRENCY = re.compile("%"), re.compile(r"\\\$|[€£¥₹]")
_COUNTED = re.compile(r"(?<![\d.,])(\d+(?:\.\d+)?) ?([a-zA-Z]{3,})")
_OPPOSED = [(re.compile(rf"\b{one}\b"), re.compile(rf"\b{other}\b")) for one, other in (
    ("min(?:imum)?", "max(?:imum)?"), ("mean|average", "median|mode"), ("median", "mode"),
)]  # fmt: skip

_WHEN = "when(?:ever)?|for(?: (?:all|every|any|each))?|at|if|since|because|where|with|as"
_CONDITION = re.compile(
    rf",? ?(?:\\(?:text|mathrm|mbox) ?\{{[ ,]*(?:{_WHEN})(?: [a-z ]*)?\}}|(?<![a-zA-Z\\])(?:{_WHEN})(?= )) ?"
)
_RELATION = re.compile(r"[=<>∈]|\\(?:leq?|geq?|lt|gt|neq?|in|to|equiv)(?![a-zA-Z])")
_RATIO = re.compile(r"\d+(?:\.\d+)?(?: ?: ?\d+(?:\.\d+)?){2,}")
_CLOCK = re.compile(r"\d{1,2}:\d\d:\d\d")

_NAME = (
    r"(?:\\(?:text|mathrm) ?\{[^{}]+\}|\\[a-zA-Z]+(?:_\{?\w+\}?)?"
    r"|[A-Za-z]+(?: [A-Za-z]+){0,3}(?:_\{?\w+\}?)?'*(?: ?\(-?\w+\))?)"
)
_NAMED = re.compile(rf"\A({_NAME}) ?= ?([^=<>]+)\Z")
_NAMED_TUPLE = re.compile(r"\A\(([^()=]+)\) ?= ?\((.+)\)\Z")
_LINES = re.compile(r"\A\\begin ?\{(?:cases|aligned|align\*?|gathered|array)\}(?:\{[lcr]+\})?(.*)\\end ?\{[a-z*]+\}\Z")
_BETWEEN = re.compile(
    rf"[,;]|\\\\|\\(?:text|mathrm) ?\{{ ?and ?\}}|(?<![a-zA-Z])and(?![a-zA-Z])|(?<=[^=,;+\-]) (?={_NAME} ?=)"
)
_LETTER = re.compile(r"[a-zA-Z]")


def contradict(ours: str, theirs: str) -> bool:
    r"""Whether something beside the values rules out that two answers are one.

    >>> contradict("12_5, 13_5", "12_6, 13_6"), contradict("5\\text{ is wrong}", "5"), contradict("x>\\$5", "x>5\\%")
    (True, True, True)
    """
    for one, other in ((ours, theirs), (theirs, ours)):
        if _denied(one) and not _denied(other) and _FORMULA.search(other):
            return True
        if _PERCENT.search(one) and _CURRENCY.search(other):
            return True
        words = [" ".join(re.findall(r"[a-z]+", side.lower())) for side in (one, other)]
        if any(_only(words, *pair) for pair in _OPPOSED):
            return True
    bases = [set(_BASE.findall(side)) for side in (ours, theirs)]
    if all(bases) and bases[0] != bases[1]:
        return True
    counted = [dict(_counts(side)) for side in (ours, theirs)]
    return len(counted[0]) > 1 and counted[0].keys() == counted[1].keys() and counted[0] != counted[1]


def same_under_conditions(ours: str, theirs: str, same: Same) -> bool | None:
    r"""``12\text{ when }x=5`` is 12, never 5; None where no side has a condition. One on one side only is no error."""
    (mine, when), (gold, then) = (_conditioned(side) for side in (ours, theirs))
    if not when and not then:
        return None
    return (not when or not then or same(when, then)) and same(mine, gold)


def same_ratio(ours: str, theirs: str, same: Same) -> bool | None:
    """Ratios of three and more: ``3:4:5`` is ``6:8:10``, and no number; None where neither side is one."""
    sides = (ours.strip(), theirs.strip())
    ratios = [_RATIO.fullmatch(side) and not _CLOCK.fullmatch(side) for side in sides]
    if not any(ratios):
        return None
    if not all(ratios):
        return False
    mine, gold = ([Fraction(part.strip()) for part in side.split(":")] for side in sides)
    return len(mine) == len(gold) and all(a * gold[0] == b * mine[0] for a, b in zip(mine, gold, strict=True))


def same_by_name(ours: str, theirs: str, same: Same) -> bool | None:
    """Several named values, name by name, or against a tuple in the names' order; None where no side names several.

    Names that follow each other in the alphabet have that order: ``x=1, y=2`` is ``(1,2)``, however it is written.
    """
    mine, gold = _named_values(ours), _named_values(theirs)
    if mine is not None and gold is not None:
        if mine.keys() != gold.keys():
            return None
        return all(same(value, gold[name]) for name, value in mine.items())
    if mine is not None:
        members = _tuple(theirs, len(mine))
        return None if members is None else _in_order(mine, members, same, ours)
    if gold is not None:
        members = _tuple(ours, len(gold))
        return None if members is None else _in_order(gold, members, lambda value, member: same(member, value), theirs)
    return None


def _only(words: list[str], first: re.Pattern[str], second: re.Pattern[str]) -> bool:
    """Whether the first side has the one word only, and the second side the other."""
    found = [[pattern.search(said) is not None for said in words] for pattern in (first, second)]
    return found == [[True, False], [False, True]]


def _denied(text: str) -> bool:
    return _DENIED.search(re.sub(TEXT, r" \1 ", text)) is not None


def _counts(text: str) -> list[tuple[str, str]]:
    """What is counted, and how many: boys and girls."""
    return [(word.lower(), count) for count, word in _COUNTED.findall(re.sub(TEXT, r" \1 ", text).replace("  ", " "))]


def _conditioned(text: str) -> tuple[str, str]:
    """A value and the condition behind it, blank for none."""
    found = list(_CONDITION.finditer(text))
    if len(found) != 1:
        return text, ""
    value, when = text[: found[0].start()].strip(), text[found[0].end() :].strip()
    holds = _RELATION.search(when) or re.fullmatch(r"[a-zA-Z](?:, ?[a-zA-Z])*", when)
    return (value, when) if _FORMULA.search(value) and holds else (text, "")


def _named_values(text: str) -> dict[str, str] | None:
    """Values by name, in the order of the text; None where it is no list of several names with one value each."""
    lines = _LINES.match(text)
    if lines is not None:
        text = lines[1].replace("&", "")
    pair = _NAMED_TUPLE.match(text)
    if pair is not None:
        names, values = pair[1].split(","), split_list(pair[2])
    else:
        parts = [_NAMED.match(part.strip()) for part in _BETWEEN.split(text) if part.strip()]
        if not all(parts):
            return None
        names = [match[1] for match in parts if match is not None]
        values = [match[2] for match in parts if match is not None]
    named = dict(zip((re.sub(TEXT, r"\1", name).replace(" ", "") for name in names), values, strict=False))
    return named if 1 < len(named) == len(names) == len(values) else None


def _tuple(text: str, count: int) -> list[str] | None:
    """The members of ``(1, 2)``; None where it has not so many."""
    if not (text.startswith("(") and text.endswith(")")):
        return None
    members = split_list(text[1:-1])
    return members if len(members) == count else None


def split_list(text: str) -> list[str]:
    """The members between the commas that stand in no bracket."""
    depth, members = 0, [""]
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            members.append("")
        else:
            members[-1] += sign
    return [member.strip() for member in members]


def _in_order(named: dict[str, str], members: list[str], same: Same, text: str) -> bool:
    letters = list(named)
    if not _NAMED_TUPLE.match(text) and all(map(_LETTER.fullmatch, letters)):
        codes = sorted(map(ord, letters))
        if codes == list(range(codes[0], codes[0] + len(codes))):
            letters = sorted(letters)
    return all(same(named[name], member) for name, member in zip(letters, members, strict=True))
