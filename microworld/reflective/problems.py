"""The problems of an experiment: chains that no flaw solves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from microworld.problems import draw_problems
from microworld.reflective.chains import FAMILIES, Chain, random_chain
from microworld.reflective.flaws import FAMILY_FLAWS, accident
from p2o_core.types import Problem

MOST_ACCIDENTS = 0.002
"""Probability that the family's flaws together end in the right answer, above which a chain is no problem. With one
kind of flaw alone it must be 0."""


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
    """The problems of one split, all sound at this rate. See :func:`microworld.problems.draw_problems`."""
    return draw_problems(rng, split, tiers, taken, sorted(FAMILIES), random_chain, lambda chain: is_sound(chain, rate))
