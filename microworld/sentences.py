"""Instruction sentences and what each does to the writer of the corpus.

Only this package knows the effects. The search is given the sentences' texts, shuffled, and nothing else
(:func:`phrase_pool`): which of them help is what GEPA has to find out by rolling the policy out.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

BARE_LOGIT = -1.5
"""Log-odds that the writer goes on to the next step when nobody tells it anything: sigmoid(-1.5) = 0.18.

Far enough from 0 that seven steps in a row hardly ever happen (0.18^6 = 3e-5), near enough that each single
choice stays inside the template-ratio mask's bounds (0.18 / 0.99 = 0.18 > 0.01), so distillation can pass it.
"""


@dataclass(frozen=True)
class Sentence:
    """One instruction sentence; ``effect`` is added to the log-odds of going on, by family."""

    text: str
    effect: dict[str, float]


def _both(text: str, effect: float) -> Sentence:
    return Sentence(text, {"sum": effect, "product": effect})


SENTENCES: tuple[Sentence, ...] = (
    _both("Work through every step.", 2.0),
    _both("Do not stop early.", 2.0),
    Sentence("Add one number after another.", {"sum": 2.5, "product": -1.5}),
    Sentence("Carry the total along.", {"sum": 2.5, "product": -1.5}),
    Sentence("Multiply again and again.", {"sum": -1.5, "product": 2.5}),
    Sentence("Keep each product.", {"sum": -1.5, "product": 2.5}),
    _both("Be polite.", 0.0),
    _both("This is a quiz.", 0.0),
    _both("Numbers are fun.", 0.0),
    _both("Use plain words.", 0.0),
    _both("Good luck.", 0.0),
    _both("Answer at once.", -2.5),
    _both("Be brief.", -2.5),
    _both("Skip the working.", -2.5),
    _both("Guess if unsure.", -1.5),
)

DISTRACTORS = tuple(
    _both(f"Think of the {colour} {animal}.", 0.0)
    for colour in ("red", "green", "blue", "old", "young", "small")
    for animal in ("fox", "owl", "cat", "hen", "cow", "dog")
)
"""Sentences without effect, for worlds in which a template drawn at random hardly ever helps."""


def all_sentences(distractors: int) -> tuple[Sentence, ...]:
    """All sentences of a world with that many distractors."""
    return SENTENCES + DISTRACTORS[:distractors]


def go_on_probability(sentences: list[Sentence], family: str) -> float:
    """Probability that the writer works one more step, given the sentences in front of the problem."""
    logit = BARE_LOGIT + sum(sentence.effect[family] for sentence in sentences)
    return 1.0 / (1.0 + math.exp(-logit))


def fitting(family: str) -> list[Sentence]:
    """The sentences that help ``family``, for the corpus and for :mod:`microworld.competence` only."""
    return [sentence for sentence in SENTENCES if sentence.effect[family] > 0]


def phrase_pool(seed: int, distractors: int = 0) -> list[str]:
    """All sentence texts in shuffled order, so that not even the order tells which help."""
    texts = [sentence.text for sentence in all_sentences(distractors)]
    random.Random(seed).shuffle(texts)
    return texts
