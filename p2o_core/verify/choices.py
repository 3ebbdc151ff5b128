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
_ONE, _BETWEEN = re.compile(r"\(?([A-J])\)?"), re.compile(r", and |,| and | & ")
_ANOTHER = re.compile(
    r"(?:\A|[ ,;/&+|(])(?:\([A-J]\)|[A-J][).:](?!\d))|(?:\A|[,;/&+|] *|(?:or|and|maybe|perhaps) +)\(?[A-J]\)?\Z"
)
"""A second choice behind the first."""


def same_choice(ours: str, theirs: str, same: Same) -> bool | None:
    """Two letters of a multiple choice, with or without their texts; None where there are no two letters."""
    sides = [re.sub(TEXT, r"\1", side).strip() for side in (ours, theirs)]
    letters = [_letters(side) for side in sides]
    if all(letters):
        return letters[0] == letters[1] != {"E"}  # Euler's number has no capital
    one, other = (_choice(side) for side in sides)
    if one is None and other is None:
        return None
    if any(map(_several, sides)):
        return False
    if one is not None and other is not None:
        values = all(re.search(r"[\d\\]", text) for _, text in (one, other))
        return one[0] == other[0] and (not values or same(one[1], other[1]))  # A) 12 and A) 13
    (letter, text), alone = (one, letters[1]) if one is not None else (other, letters[0])  # type: ignore[misc]
    if alone:
        return alone == {letter}
    return bool(text) and (same(text, theirs) if one is not None else same(ours, text))


def _choice(text: str) -> tuple[str, str] | None:
    """The letter of ``C) 14`` and its text, blank for none; a letter alone needs its parentheses: C may be a number."""
    match = _CHOICE.match(text)
    if match is not None and re.match(r"(?i)(?:and|or|,|&|\()\b", match[4] or ""):
        return None  # (A) and (B)
    return None if match is None else ((match[1] or match[2] or match[3]).upper(), (match[4] or "").strip())


def _letters(text: str) -> set[str]:
    """The letters of ``A``, or ``(A), (C)`` and ``A and C``; empty for anything else."""
    lone = _LETTER.match(text)
    if lone is not None:
        return {lone[1].upper()}
    parts = [_ONE.fullmatch(part.strip()) for part in _BETWEEN.split(text)]
    return {match[1] for match in parts if match is not None} if all(parts) else set()


def _several(text: str) -> bool:
    """``A) 5 or B) 6``."""
    match = _CHOICE.match(text)
    return match is not None and _ANOTHER.search(match[4] or "") is not None
