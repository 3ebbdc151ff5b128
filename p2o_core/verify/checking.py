"""One answer against its gold answer, in this process and without a time-out.

What a policy writes is hostile input. What can be told cheaply is told here before anything is parsed: how much of a
long response is read, control characters inside an answer, answers too long or nested too deep for any solution.
:mod:`p2o_core.verify` runs :func:`check_answer` in processes with limits on time and memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from p2o_core.types import Verdict, VerdictStatus
from p2o_core.verify.equivalence import equivalent, last_boxed, readable
from p2o_core.verify.magnitude import ENDLESS_DECIMAL, NumberTooLarge
from p2o_core.verify.prose import answer_in_prose

Pair = tuple[str, str | Sequence[str]]
"""A response and its gold answer, or several gold answers of which any is right."""

READ_CHARACTERS = 65_536
"""Most characters of a response that are parsed: its end, or from the last box on when no box starts in its end."""

ANSWER_CHARACTERS = 4_096
"""Longest answer that is parsed; the longest gold answer of our data sets has 230. Beyond it, ``unparsable``."""

ANSWER_DEPTH = 32
"""Deepest nesting of braces that is parsed; our gold answers reach 3. The LaTeX grammar's time grows steeply with it
(20 pairs around one digit take 2 s). Beyond it, ``unparsable``."""

SHOWN_CHARACTERS = 200
"""Length of a verdict's ``extracted`` at most."""

_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control and bidirectional characters and lone surrogates: a person would see another answer than the parser reads."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060-\u2064\ufeff\ufff9-\ufffb\ufffe\uffff]")
_BRACE = re.compile(r"(?<!\\)[{}]")


def window(response: str) -> str:
    """The part of a response that is read, at most :data:`READ_CHARACTERS`.

    The answer is at the end or in the last box. So it is the end, unless a box starts before the end but none in it:
    then it starts with that box. Takes no more than a search for a word, so that the caller can afford it.
    """
    if len(response) <= READ_CHARACTERS:
        return response
    start = max(response.rfind("\\boxed"), response.rfind("\\fbox"))
    if 0 <= start < len(response) - READ_CHARACTERS:
        return response[start : start + READ_CHARACTERS]
    return response[-READ_CHARACTERS:]


def shown(text: str) -> str:
    """A text as a verdict may carry it, to parquet and to web pages: short, without what cannot be encoded or seen.

    >>> shown("5\\u202e2")
    '52'
    """
    return _INVISIBLE.sub("", _UNREADABLE.sub("", text[: 4 * SHOWN_CHARACTERS]))[:SHOWN_CHARACTERS]


def hopeless(answer: str) -> bool:
    """Whether an answer is too long, nested too deep, has a number of millions of digits or characters nobody can see,
    and is not parsed at all."""
    unreadable = _UNREADABLE.search(answer) or ENDLESS_DECIMAL.search(answer)
    return len(answer) > ANSWER_CHARACTERS or unreadable is not None or _too_deep(answer)


def check_answer(pair: Pair) -> Verdict:
    """Compare one response with its gold answer, or with each of several until one agrees.

    The answer is what the last box holds, and boxes that stand close to it; without a box, what
    :func:`p2o_core.verify.prose.answer_in_prose` finds. Whether it says the same as the gold answer is
    :func:`p2o_core.verify.equivalence.equivalent`'s word. Raises what sympy raises.
    """
    response, golds = window(pair[0]), (pair[1],) if isinstance(pair[1], str) else tuple(pair[1])
    boxed = last_boxed(response)
    if hopeless(boxed) if boxed is not None else _too_deep(response):
        return Verdict(VerdictStatus.UNPARSABLE, 0.0, "")
    # a space: taken out, they would join two numbers to a third
    response = _UNREADABLE.sub(" ", response)
    answer = boxed if boxed is not None else answer_in_prose(response)
    if answer is None or hopeless(answer):
        return Verdict(VerdictStatus.UNPARSABLE, 0.0, "")
    answers = [answer]
    if boxed is not None and response.count("boxed") > 1:
        answers += _boxes_side_by_side(response, boxed)
    for gold in golds:
        if any(equivalent(answer, gold) for answer in answers):
            return Verdict(VerdictStatus.CORRECT, 1.0, shown(answers[0]))
    unreadable = next((gold for gold in golds if not readable(gold)), None)
    if unreadable is not None:
        return Verdict(VerdictStatus.ERROR, 0.0, shown(f"gold answer unreadable: {unreadable[:80]}"))
    status = VerdictStatus.WRONG if readable(answers[0]) else VerdictStatus.UNPARSABLE
    return Verdict(status, 0.0, shown(answers[0]) if status is VerdictStatus.WRONG else "")


def checked(pair: Pair) -> Verdict:
    """:func:`check_answer` that never raises: what math-verify or sympy raise is typed, counted, never a silent 0.

    Exceptions stay in the worker: one that cannot be unpickled would take the whole pool down with it.
    """
    try:
        return check_answer(pair)
    except NumberTooLarge:
        return Verdict(VerdictStatus.UNPARSABLE, 0.0, "")
    except Exception as error:  # RecursionError and MemoryError are among them
        return failed(f"{type(error).__name__}: {_words(error)}")


def failed(reason: str) -> Verdict:
    """The verdict on an answer that could not be checked, ``extracted`` saying why."""
    return Verdict(VerdictStatus.ERROR, 0.0, shown(reason))


def _boxes_side_by_side(response: str, last: str) -> list[str]:
    """What math-verify takes for one answer in several boxes: ``\\boxed{1}`` and ``\\boxed{2}``."""
    from latex2sympy2_extended.math_normalization import extract_boxed_content

    together = extract_boxed_content(response, mode="last")
    return [together] if together.strip() != last and not hopeless(together) else []


def _words(error: Exception) -> str:
    try:
        return str(error)[:SHOWN_CHARACTERS]
    except Exception:  # an integer of more than 4,300 digits in the message: not printable either
        return ""


def _too_deep(text: str) -> bool:
    depth = 0
    for match in _BRACE.finditer(text):
        depth = depth + 1 if match[0] == "{" else max(0, depth - 1)
        if depth > ANSWER_DEPTH:
            return True
    return False
