"""One value of a row as a problem's field: a text, or refused. Nothing is ever written as its repr."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from p2o_core.schemas import BadInput
from tasks.problems.answers import EXTRACTORS, AnswerKind
from tasks.problems.tables import Unreadable

EXACT = 2.0**53
"""From here on not every whole number is a float, and the shortest decimal is the number that was meant."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Answers = Literal["alternatives", "set"]


def lookup(record: Mapping[str, Any], name: str) -> Any:
    """A column's value; a dotted name that is no column goes into structs. None where nothing is.

    >>> lookup({"reward_model": {"ground_truth": "4"}}, "reward_model.ground_truth")
    '4'
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def has(record: Mapping[str, Any], name: str) -> bool:
    """Whether a row has the column, null or not."""
    parent, _, last = name.rpartition(".")
    inner = lookup(record, parent) if parent else record
    return name in record or (isinstance(inner, Mapping) and last in inner)


def text_of(value: Any, name: str, place: str) -> str:
    """A text, number or truth value as its text; blank for null. ``place`` is file and row, ``name`` the column.

    Raises:
        BadInput: it is a list, a struct, bytes, a time, not finite, or a text that cannot be encoded.
    """
    if value is None:
        return ""
    if isinstance(value, Unreadable):
        raise BadInput(f"{place}: column {name!r} cannot be read ({value}). Mend: write it as text, or name another.")
    if isinstance(value, str):
        return _encodable(value, name, place).strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{place}: column {name!r} is {value}, no value. Mend: fill it, or drop the row.")
        return str(int(value)) if value == int(value) and abs(value) < EXACT else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}.{key}" for key in value)
        raise BadInput(f"{place}: column {name!r} is a struct. Mend: name a field of it ({inner}) in `columns`.")
    kind = type(value).__name__
    raise BadInput(f"{place}: column {name!r} is of type {kind}, not text. Mend: write it as text, or name another.")


def question_of(value: Any, name: str, place: str) -> str:
    """A question: text, or the user's words of a chat (a list of messages, as verl's ``prompt``); a system message is
    left out, since the policy's prompt is made here.

    Raises:
        BadInput: it is something else, or a chat of several turns.
    """
    if not isinstance(value, list):
        return text_of(value, name, place)
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in value]
    asked = [message for message, role in zip(value, roles, strict=True) if role == "user"]
    if len(asked) != 1 or not set(roles) <= {"system", "user"}:
        raise BadInput(
            f"{place}: column {name!r} is a list, and no chat with one message of the user's "
            f"(roles: {roles[:6]}). Mend: one question a row."
        )
    return text_of(asked[0].get("content"), f"{name}.content", place)


def golds_of(value: Any, name: str, place: str, kind: AnswerKind, answers: Answers | None) -> tuple[str, ...]:
    """The right answers, at least one: the spellings of a list of alternatives, each once; otherwise one text, blank
    for none.

    Raises:
        BadInput: it is no text, or a list and ``answers`` does not say of what.
    """
    extract = EXTRACTORS[kind]
    if not isinstance(value, list):
        return (extract(text_of(value, name, place)),)
    if answers is None:
        raise BadInput(
            f"{place}: column {name!r} is a list. Mend: say beside its path `answers: alternatives` (each is right "
            "by itself) or `answers: set` (all of them together are the answer)."
        )
    parts = [extract(text_of(part, name, place)) for part in value]
    if len(parts) > 1 and not all(parts):
        raise BadInput(f"{place}: column {name!r} has an empty element. Mend: fill it or drop it.")
    return (", ".join(parts),) if answers == "set" or not parts else tuple(dict.fromkeys(parts))


def _encodable(text: str, name: str, place: str) -> str:
    control = _CONTROL.search(text)
    broken = f"the control character {control[0]!a}" if control is not None else ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        broken = f"half a character (the lone surrogate {text[error.start]!a})"
    if broken:
        raise BadInput(
            f"{place}: column {name!r} holds {broken}. Mend: write the text again; in JSON a backslash is written "
            'twice, as in "\\\\frac12".'
        )
    return text
