"""The problems of an experiment: chains that no flaw solves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from microworld.reflective.chains import FAMILIES, Chain, random_chain
from microworld.reflective.flaws import FAMILY_FLAWS, accident
from p2o_core.types import Problem

TRIES = 10_000
"""Draws for a problem not taken yet; chains of one step are few (150 a family)."""
MOST_ACCIDENTS = 0.002
"""Probability that the family's flaws together end in the right answer, above which a chain is no problem. With one
kind of flaw alone it must be 0. Factors modulo 50 often cancel: one product of seven steps in forty is left."""


def is_sound(chain: Chain, rate: float) -> bool:
    """Flaws at this rate a step hardly ever solve the chain."""
    flaws = FAMILY_FLAWS[chain.family]
    if any(accident(chain, {flaw: rate}) for flaw in flaws):
        return False
    return accident(chain, dict.fromkeys(flaws, rate)) <= MOST_ACCIDENTS


def sound_chain(rng: random.Random, family: str, length: int, rate: float) -> Chain:
    """A chain that no flaw solves, drawn uniformly."""
    return next(chain for chain in iter(lambda: random_chain(rng, family, length), None) if is_sound(chain, rate))


def draw_split(
    rng: random.Random, split: str, tiers: Sequence[tuple[str, int, int]], taken: set[str], rate: float
) -> Iterator[Problem]:
    """``count`` distinct problems for each ``(difficulty, length, count)``, families in turn; none in ``taken``.

    Problems are added to ``taken``, so no question occurs in two splits.

    Raises:
        ValueError: there are not that many chains of that length.
    """
    families = sorted(FAMILIES)
    for difficulty, length, count in tiers:
        for index in range(count):
            family = families[index % len(families)]
            draws = (random_chain(rng, family, length) for _ in range(TRIES))
            chain = next((c for c in draws if c.question not in taken and is_sound(c, rate)), None)
            if chain is None:
                raise ValueError(f"{split}: no new {family} chain of {length} steps in {TRIES} draws; ask for fewer")
            taken.add(chain.question)
            yield Problem(
                id=f"{split}-{family}-{length}-{index:04d}",
                question=chain.question,
                answer=str(chain.values[-1]),
                difficulty=difficulty,
                split=split,
                kind=family,
            )
