"""Times of day and dates: ``3:00 p.m.`` is 15:00, ``7:05`` is not 7 to 5, ``2020-01-02`` is no subtraction."""

from __future__ import annotations

import re
from math import gcd

MERIDIEMS = ("a.m.", "p.m.")

_TEXT = r"(?:\\(?:text|mathrm) ?\{)?"
_MERIDIEM = re.compile(
    rf" ?{_TEXT} ?(?:(?<![a-zA-Z])([ap])\.? ?m\.?|(?:in the|at) (morning|afternoon|evening|night))"
    r"(?P<rest>(?: [a-zA-Z]+){0,4})\.? ?\}?\Z",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\A(\d{1,2})(?::(\d\d))?(?::(\d\d))?\Z")
_ZERO_MINUTES = re.compile(r"\A\d{1,2}:0[1-9](?::\d\d)?\Z")
_CLOCK_FACE = re.compile(r"\A(?:[01]?\d|2[0-3]):[0-5]\d\Z")
_DATE = re.compile(r"\A\d{1,4}([-/.])\d{1,2}\1\d{2,4}\Z")


def split_time(text: str) -> tuple[str, str, str] | None:
    """The clock, ``a.m.`` or ``p.m.``, and words behind it such as a day or a time zone; None where there is no time.

    >>> split_time("3:00 PM Monday"), split_time("3 pm")
    (('3:00', 'p.m.', 'monday'), ('3', 'p.m.', ''))
    """
    match = _MERIDIEM.search(text)
    if match is None or not _CLOCK.match(text[: match.start()].strip()):
        return None
    half = "a" if (match[1] or match[2]).lower() in ("a", "morning") else "p"
    return text[: match.start()].strip(), f"{half}.m.", match["rest"].strip().lower()


def same_date(one: str, other: str) -> bool | None:
    """Whether two dates or clocks are the same; None where neither side is one.

    ``3:30`` may be a ratio, which people write in lowest terms: against a number it is one only then. Two that look
    like clocks are compared as clocks: 2:40 is not 1:20.

    >>> same_date("2020-01-02", "2017"), same_date("7:05", "7:5"), same_date("7:5", "7/5")
    (False, False, None)
    >>> same_date("3:30", "0.1"), same_date("2:40", "1:20"), same_date("3:10", "0.3"), same_date("10:15", "2:3")
    (False, False, None, None)
    """
    if any(_DATE.match(side) for side in (one, other)):
        return one == other
    if any(_ZERO_MINUTES.match(side) for side in (one, other)):
        return one.lstrip("0") == other.lstrip("0")
    faces = [_CLOCK_FACE.match(side) is not None for side in (one, other)]
    if all(faces):
        return one.lstrip("0") == other.lstrip("0")
    for face, side, against in zip(faces, (one, other), (other, one), strict=True):
        if face and ":" not in against and gcd(*map(int, side.split(":"))) > 1:
            return False
    return None


def same_clock(one: str, other: str, halves: tuple[str | None, str | None]) -> bool | None:
    """Whether two clocks are the same, with the halves of the day that each side names; None where one is no clock."""
    times = [_CLOCK.match(side) for side in (one, other)]
    if not all(times):
        return None
    clocks = [tuple(int(part or 0) for part in match.groups()) for match in times if match is not None]
    named = [half for half in halves if half is not None]
    if len(named) == 2 and named[0] != named[1]:
        return False
    if len(named) == 1 and max(clocks)[0] > 12:  # 15:00 and 3:00 p.m.
        return named[0] == "p.m." and abs(clocks[0][0] - clocks[1][0]) == 12 and clocks[0][1:] == clocks[1][1:]
    return clocks[0] == clocks[1]
