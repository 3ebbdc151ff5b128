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
_SAID = re.compile(r"\d+(?:[.,]\d+)*|\w+|[^\s\w.,;:?'\"`$\\]")
"""Words, numbers with their points, and every sign but those of sentences."""
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
        whole.setdefault(said(problem.question), problem.id)
        for gram in _ngrams(normalised_words(problem.question)) if problem.id not in validation else ():
            grams.setdefault(gram, problem.id)
    kept: dict[tuple[str, ...], Problem] = {}
    duplicates, contaminated = [], {}
    for problem in train:
        text, words = said(problem.question), normalised_words(problem.question)
        if text in kept:
            duplicates.append(problem.id)
            continue
        kept[text] = problem
        shared = whole.get(text) or next((grams[gram] for gram in _ngrams(words) if gram in grams), None)
        if shared is not None:
            contaminated[problem.id] = shared
    return Cleaned(list(kept.values()), duplicates, contaminated)


def said(question: str) -> tuple[str, ...]:
    """What a question says: case, spacing and the marks of sentences do not tell problems apart, all other signs do.

    >>> said("Is 3 < 5?") == said("Is 3 > 5?"), said("2³") == said("23"), said("Is  it 5?") == said("is it 5")
    (False, False, True)
    """
    parts = (f"^{unicodedata.normalize('NFKC', sign)}" if _is_raised(sign) else sign for sign in question)
    return tuple(_SAID.findall(unicodedata.normalize("NFKC", "".join(parts)).lower().replace("\u2212", "-")))


def _is_raised(sign: str) -> bool:
    return unicodedata.decomposition(sign).startswith("<super>")


def normalised_words(question: str) -> tuple[str, ...]:
    """Lower-case words and plain operators, of which thirteen in a row are compared."""
    text = unicodedata.normalize("NFKC", question).lower()
    return tuple(_WORD.findall(text.translate(_SIGNS)))


def _ngrams(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [words[start : start + NGRAM] for start in range(len(words) - NGRAM + 1)]
