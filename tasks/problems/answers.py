"""The gold answer out of what a publisher's column holds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal

from p2o_core.verify.equivalence import last_boxed

AnswerKind = Literal["plain", "gsm8k", "boxed", "list", "olympiad"]


def plain(value: Any) -> str:
    """Text as it stands; whole floats lose their ``.0`` (AMC's 142.0 is 142)."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value).strip()


def gsm8k(value: Any) -> str:
    """What stands behind the last ``####`` (GSM8K), thousands separators removed."""
    _, mark, answer = str(value).rpartition("####")
    return answer.strip().replace(",", "") if mark else ""


def boxed(value: Any) -> str:
    """The content of the last ``\\boxed{…}``, braces balanced (MATH's solutions); the text itself without a box.

    >>> boxed("so \\\\boxed{\\\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    """
    text = str(value)
    return last_boxed(text) or text.strip()


def first_of_list(value: Any) -> str:
    """One element of a list (Minerva's ``["9.6\\n"]``); several joined by commas."""
    return ", ".join(plain(item) for item in value) if isinstance(value, (list, tuple)) else plain(value)


def olympiad(value: Any) -> str:
    """OlympiadBench: a list of LaTeX answers within dollars."""
    return re.sub(r"\s+", " ", first_of_list(value).replace("$", "")).strip()


EXTRACTORS: dict[AnswerKind, Callable[[Any], str]] = {
    "plain": plain,
    "gsm8k": gsm8k,
    "boxed": boxed,
    "list": first_of_list,
    "olympiad": olympiad,
}
