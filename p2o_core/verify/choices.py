r"""Multiple choice: ``C``, ``(C)``, ``C) 14`` and ``14`` are one answer, ``(A) 5 (B) 6`` is none."""

from __future__ import annotations

import re
from collections.abc import Callable

from p2o_core.verify.notation import TEXT

Same = Callable[[str, str], bool]
"""Whether two answers say the same."""

_CHOICE = re.compile(
    r"\A(?:(?:option|choice|answer) +)?(?:\(([A-J])\)|([A-J])[).:]|(?<=[a-z] )([A-J])\Z)(?: *(.+))?\Z",
    re.IGNORECASE | re.DOTALL,
)
_LETTER = re.compile(r"\A\(?([A-J])[).]?\Z", re.IGNORECASE)
_ANOTHER = re.compile(
    r"(?:\A|[ ,;/&+|(])(?:\([A-J]\)|[A-J][).:](?!\d))|(?:\A|[,;/&+|] *|(?:or|and|maybe|perhaps) +)\(?[A-J]\)?\Z"
)
"""A second choice behind the first."""


def same_choice(ours: str, theirs: str, same: Same) -> bool | None:
    """Two letters of a multiple choice, with or without their texts; None where there are no two letters."""
    sides = [re.sub(TEXT, r"\1", side).strip() for side in (ours, theirs)]
    lone = [_LETTER.match(side) for side in sides]
    if all(lone):
        letters = {match[1].upper() for match in lone if match is not None}
        return len(letters) == 1 and letters != {"E"}  # Euler's number has no capital
    one, other = (_choice(side) for side in sides)
    if one is None and other is None:
        return None
    for side, choice in zip(sides, (other, one), strict=True):  # the one against the choice
        if _several(side) and (choice is not None or _LETTER.match(sides[1 - sides.index(side)])):
            return False
    if one is not None and other is not None:
        values = all(re.search(r"[\d\\]", text) for _, text in (one, other))
        return one[0] == other[0] and (not values or same(one[1], other[1]))  # A) 12 and A) 13
    (letter, text), plain = (one, theirs) if one is not None else (other, ours)  # type: ignore[misc]
    alone = _LETTER.match(re.sub(TEXT, r"\1", plain).strip())
    if alone is not None:
        return alone[1].upper() == letter
    return same(text, plain) if one is not None and text else bool(text) and same(plain, text)


def _choice(text: str) -> tuple[str, str] | None:
    """The letter of ``C) 14`` and its text, blank for none; a letter alone needs its parentheses: C may be a number."""
    match = _CHOICE.match(text)
    if match is not None and re.match(r"(?i)(?:and|or|,|&|\()\b", match[4] or ""):
        return None  # (A) and (B)
    return None if match is None else ((match[1] or match[2] or match[3]).upper(), (match[4] or "").strip())


def _several(text: str) -> bool:
    """``A) 5 or B) 6``."""
    match = _CHOICE.match(text)
    return match is not None and _ANOTHER.search(match[4] or "") is not None
