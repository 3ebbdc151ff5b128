"""The gold answer out of what a publisher's column holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from p2o_core.verify.equivalence import last_boxed

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:,\d{3})*(?!\d|,\d))")

AnswerKind = Literal["plain", "whole", "gsm8k", "boxed", "olympiad"]


def plain(text: str) -> str:
    """As it stands."""
    return text


def whole(text: str) -> str:
    """Whole numbers that their publisher wrote as floats: AMC's 142.0 is 142."""
    return re.sub(r"\A(-?\d+)\.0+\Z", r"\1", text)


def gsm8k(text: str) -> str:
    """What stands behind the last ``####`` (GSM8K), thousands separators removed."""
    _, mark, answer = text.rpartition("####")
    return _THOUSANDS.sub("", answer.strip()) if mark else ""


def boxed(text: str) -> str:
    """The content of the last ``\\boxed{…}``, braces balanced (MATH's solutions); the text itself without a box.

    >>> boxed("so \\\\boxed{\\\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
    """
    return last_boxed(text) or text


def olympiad(text: str) -> str:
    """LaTeX within dollars (OlympiadBench), also several such; the dollars removed."""
    return re.sub(r"\s+", " ", text.replace("$", "")).strip()


EXTRACTORS: dict[AnswerKind, Callable[[str], str]] = {
    "plain": plain,
    "whole": whole,
    "gsm8k": gsm8k,
    "boxed": boxed,
    "olympiad": olympiad,
}
