"""Draws from a data set: so many problems by seed, or so many of each kind of answer."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, NonNegativeInt

from p2o_core.config import Section, Share

Item = TypeVar("Item")

YES_NO = "yes_no"
_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (YES_NO, re.compile(r"yes|no|true|false", re.IGNORECASE)),
    ("multiple_choice", re.compile(r"[A-Za-z]|\([A-Za-z]\)")),
    ("numeric", re.compile(_NUMBER)),
    ("percentage", re.compile(r"-?\d+\.?\d*%")),
    ("numeric_with_unit", re.compile(r"-?\d+\.?\d*\s*[a-zA-Z]+")),
    ("mathematical_symbol", re.compile(r".*[√π∞∑∫].*", re.DOTALL)),
    ("interval_set", re.compile(r"[\[(]-?.*,.*[\])]")),  # tuples too
    ("text_answer", re.compile(r"\s*\S+(?:\s+\S+){5,}\s*")),
)
"""The kinds of the official code (zlkqz/P2O, scripts/data_process/DeepMath-103K.py); the first that fits counts."""


def answer_kind(answer: str) -> str:
    """The kind of an answer, ``other`` for one that fits none.

    >>> answer_kind("Yes"), answer_kind("\\\\frac{1}{2}"), answer_kind("7/3")
    ('yes_no', 'other', 'numeric')
    """
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(answer.strip())), "other")


class AnswerTypes(Section):
    """The official code's balancing: within each level of difficulty, the kinds of answers but yes/no are drawn in
    proportion to a power of their counts, and yes/no at most to a share of all. Same seed, same problems as there."""

    type: Literal["answer-types"] = "answer-types"
    yes_no: Share = Field(0.05, lt=1, description="share of yes/no answers at most; the paper's")
    power: float = Field(
        0.5, ge=0, description="of a kind's count; 1 keeps proportions, 0 makes kinds equal; the paper's"
    )
    seed: NonNegativeInt = Field(42, description="of the draw; the paper's")

    def draw(self, levels: Sequence[float] | Sequence[str], answers: Sequence[str]) -> list[int]:
        """Indices of the problems that stay, in the order drawn. ``levels`` and ``answers`` are one a problem.

        The calls to the generator are the official code's, in its order, so that the same rows are drawn.
        """
        rng = random.Random(self.seed)
        by_level: dict[Any, dict[str, list[int]]] = {}
        for index, (level, answer) in enumerate(zip(levels, answers, strict=True)):
            by_level.setdefault(level, {}).setdefault(answer_kind(answer), []).append(index)
        chosen: list[int] = []
        for _, kinds in sorted(by_level.items()):
            for kind, count in self.counts({kind: len(members) for kind, members in kinds.items()}).items():
                chosen += kinds[kind] if count >= len(kinds[kind]) else rng.sample(kinds[kind], count)
        rng.shuffle(chosen)
        return self._capped(chosen, answers, rng)

    def counts(self, available: Mapping[str, int]) -> dict[str, int]:
        """Problems to draw of each kind, yes/no last; a kind may have fewer.

        >>> AnswerTypes().counts({"numeric": 64, "yes_no": 32, "other": 4})
        {'numeric': 76, 'other': 19, 'yes_no': 5}
        """
        total = sum(available.values())
        weights = {kind: count**self.power for kind, count in available.items() if kind != YES_NO}
        room, all_weights = int(total * (1 - self.yes_no)), sum(weights.values())
        counts = {kind: int(weight / all_weights * room) for kind, weight in weights.items()}
        if YES_NO in available:
            most = int(sum(counts.values()) * self.yes_no / (1 - self.yes_no))
            counts[YES_NO] = min(available[YES_NO], most)
        return counts

    def _capped(self, chosen: list[int], answers: Sequence[str], rng: random.Random) -> list[int]:
        """Where kinds had fewer than their count, yes/no may be above its share of what there is: drawn again. The
        share is of what there was before, so a little more than it may stay (32 of 632 for 5 %), as in the original."""
        yes_no = [index for index in chosen if answer_kind(answers[index]) == YES_NO]
        most = int(len(chosen) * self.yes_no)
        if not chosen or len(yes_no) / len(chosen) <= self.yes_no:
            return chosen
        others = [index for index in chosen if answer_kind(answers[index]) != YES_NO]
        capped = others + (rng.sample(yes_no, most) if len(yes_no) > most else yes_no)
        rng.shuffle(capped)
        return capped


def drawn(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """``count`` of the items at most, and the others, both shuffled. The draw is the one that ``datasets`` makes in
    ``train_test_split(test_size=count, seed=seed)``, as published recipes use it.

    >>> drawn("abcdef", 2, seed=42)
    (['d', 'c'], ['f', 'e', 'b', 'a'])
    """
    if count >= len(items):
        return list(items), []
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in order[:count]], [items[i] for i in order[count:]]
