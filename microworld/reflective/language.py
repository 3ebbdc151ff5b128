"""Instruction sentences, verb x object x manner, and what each does to the writer.

Only this package knows the effects. A sentence concerns the family of its object. Said in a good manner it mends the
flaw of its verb; said in a bad one it does harm: whatever the other sentences say, the family's flaws strike at almost
every step. All other sentences do nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

from microworld.reflective.flaws import FAMILY_FLAWS, Hazards

VERBS = {
    "Finish": "stop",
    "Include": "skip",
    "Compute": "guess",
    "Check": "slip",
    "Measure": "leap",
    "Continue": "reset",
} | dict.fromkeys(("Consider", "Describe", "Enjoy", "Imagine", "Mention", "Name"))
OBJECTS = {"totals": "sum", "remainders": "fall", "increases": "growth", "payments": "debt"} | dict.fromkeys(
    ("colours", "letters", "questions", "pictures", "stories", "shapes", "rules", "patterns")
)
GOOD, BAD = ("patiently.", "thoroughly."), ("carelessly.", "hastily.")
MANNERS = (*GOOD, *BAD, "quietly.", "kindly.", "aloud.", "today.")
MOST_SENTENCES = 6
"""In a template that a review writes."""

MENDS = 5.0
"""Added to the log-odds of no flaw: 0.5 becomes 0.993 a step, a template ratio far inside the mask's bounds."""
HARMED = 0.9
"""Probability a step of each flaw under a harmful sentence."""


@dataclass(frozen=True)
class Sentence:
    """One instruction sentence."""

    verb: str
    object: str
    manner: str

    @property
    def text(self) -> str:
        return f"{self.verb} {self.object} {self.manner}"

    @property
    def flaw(self) -> str | None:
        return VERBS[self.verb]

    @property
    def family(self) -> str | None:
        return OBJECTS[self.object]

    @property
    def mends(self) -> bool:
        """It mends its family's flaw, if the family has it."""
        return self.flaw is not None and self.family is not None and self.manner in GOOD

    @property
    def harms(self) -> bool:
        return self.family is not None and self.manner in BAD

    @property
    def helps(self) -> bool:
        """It mends a flaw that its family has."""
        return self.mends and self.flaw in FAMILY_FLAWS[str(self.family)]


SENTENCES = tuple(Sentence(v, o, m) for v in VERBS for o in OBJECTS for m in MANNERS)


def joined(sentences: Sequence[Sentence]) -> str:
    """The template of these sentences."""
    return " ".join(sentence.text for sentence in sentences)


@cache  # a text of the corpus asks several times, and a pass over the language takes longer than the rest of it
def fitting(family: str, flaw: str) -> tuple[Sentence, ...]:
    """The sentences that mend the flaw in that family."""
    return tuple(s for s in SENTENCES if s.mends and (s.family, s.flaw) == (family, flaw))


@cache
def harmful(family: str, flaw: str) -> tuple[Sentence, ...]:
    """What a reviewer says of the flaw when it does harm."""
    return tuple(s for s in SENTENCES if s.harms and (s.family, s.flaw) == (family, flaw))


def language(seed: int, helpful_share: float) -> list[Sentence]:
    """The helpful sentences and as many others as make them that share of all, shuffled."""
    rng = random.Random(seed)
    helpful = [s for s in SENTENCES if s.helps]
    others = [s for s in SENTENCES if not s.helps]
    wanted = min(len(others), round(len(helpful) / helpful_share) - len(helpful))
    chosen = helpful + rng.sample(others, wanted)
    rng.shuffle(chosen)
    return chosen


def mended(sentences: Sequence[Sentence], family: str) -> set[str]:
    """The flaws of the family that the sentences mend."""
    ours = [sentence for sentence in sentences if sentence.family == family]
    return set() if any(s.harms for s in ours) else {str(s.flaw) for s in ours if s.mends}


def hazards(sentences: Sequence[Sentence], family: str, flaws: Collection[str], rate: float) -> Hazards:
    """How often each flaw strikes a student with these flaws under these sentences."""
    if any(sentence.harms and sentence.family == family for sentence in sentences):
        return dict.fromkeys(flaws, HARMED)
    told = 1 / (1 + (1 - rate) / rate * math.exp(MENDS))
    mends = mended(sentences, family)
    return {flaw: told if flaw in mends else rate for flaw in flaws}
