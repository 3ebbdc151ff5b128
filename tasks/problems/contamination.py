"""Duplicates within the train split, and problems of the benchmarks among it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from p2o_core.types import Problem

NGRAM = 13
"""Words in a row that two problems may not share (GPT-3, arXiv 2005.14165, appendix C)."""

_WORD = re.compile(r"\w+")
_SIGNS = str.maketrans({"+": " plus ", "-": " minus ", "*": " times ", "/": " over ", "=": " equals ", "^": " power "})


@dataclass(frozen=True)
class Cleaned:
    """The train problems that stay; ids of those that said the same as an earlier one; and of those that a held-out
    problem shares its text or thirteen words in a row with, with that problem's id."""

    problems: list[Problem]
    duplicates: list[str]
    contaminated: dict[str, str]


def clean(train: Sequence[Problem], heldout: Sequence[Problem], validation: Collection[str] = ()) -> Cleaned:
    """Drop duplicates, and tell (not drop) what is contaminated: what to do about it is the caller's.

    ``validation`` are the ids of held-out problems that were drawn from a train source. Those share their phrases with
    the train problems by their nature (``find the number of ordered pairs of positive integers …``), so only their
    whole texts are looked for.
    """
    whole: dict[tuple[str, ...], str] = {}
    grams: dict[tuple[str, ...], str] = {}
    for problem in heldout:
        words = normalised_words(problem.question)
        whole.setdefault(words, problem.id)
        for gram in _ngrams(words) if problem.id not in validation else ():
            grams.setdefault(gram, problem.id)
    kept: dict[tuple[str, ...], Problem] = {}
    duplicates, contaminated = [], {}
    for problem in train:
        words = normalised_words(problem.question)
        if words in kept:
            duplicates.append(problem.id)
            continue
        kept[words] = problem
        shared = whole.get(words) or next((grams[gram] for gram in _ngrams(words) if gram in grams), None)
        if shared is not None:
            contaminated[problem.id] = shared
    return Cleaned(list(kept.values()), duplicates, contaminated)


def normalised_words(question: str) -> tuple[str, ...]:
    """Lower-case words and signs: spacing and case do not tell problems apart, numbers and operators do."""
    text = unicodedata.normalize("NFKC", question).lower()
    return tuple(_WORD.findall(text.translate(_SIGNS)))


def _ngrams(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [words[start : start + NGRAM] for start in range(len(words) - NGRAM + 1)]
