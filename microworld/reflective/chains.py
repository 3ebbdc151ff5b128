"""Chains of additions and subtractions modulo 50, in four families.

Simple arithmetic on purpose: what this world is about is reading instructions and failures, and a tiny model that also
has to learn multiplication tables reads worse.
"""

from __future__ import annotations

import random

import microworld.problems

MODULUS = 50
LABELS = "abcdefg"
FAMILIES: dict[str, tuple[str, ...]] = {
    "sum": ("+2", "+5", "+8"),
    "fall": ("-1", "-4", "-6"),
    "growth": ("+3", "+7", "+9"),
    "debt": ("-2", "-5", "-8"),
}


def apply_step(step: str, value: int) -> int:
    """The value after one step.

    >>> apply_step("-6", 2), apply_step("+9", 47)
    (46, 6)
    """
    return (value + int(step)) % MODULUS


class Chain(microworld.problems.Chain):
    """A chain of this world's steps.

    Example: ``Chain("sum", 47, ("+5", "+2"))`` reads ``sum 47 a+5 b+2 ?`` and ends in 4.
    """

    def after(self, step: str, value: int) -> int:
        return apply_step(step, value)


def random_chain(rng: random.Random, family: str, length: int) -> Chain:
    """Any chain, drawn uniformly."""
    return Chain(family, rng.randrange(MODULUS), tuple(rng.choices(FAMILIES[family], k=length)))
