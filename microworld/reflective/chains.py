"""Chains of arithmetic steps modulo 50, in four families."""

from __future__ import annotations

import random

import microworld.problems

MODULUS = 50
LABELS = "abcdefg"
FAMILIES: dict[str, tuple[str, ...]] = {
    "sum": ("+2", "+5", "+8"),
    "fall": ("-1", "-4", "-6"),
    "product": ("*3", "*7", "*9"),
    "growth": ("3x+1", "3x+4", "3x+6"),
}


def apply_step(step: str, value: int) -> int:
    """The value after one step.

    >>> apply_step("-6", 2), apply_step("3x+4", 20)
    (46, 14)
    """
    if step.startswith("3x"):
        return (3 * value + int(step[2:])) % MODULUS
    operand = int(step[1:])
    return (value * operand if step[0] == "*" else value + (operand if step[0] == "+" else -operand)) % MODULUS


class Chain(microworld.problems.Chain):
    """A chain of this world's steps.

    Example: ``Chain("sum", 47, ("+5", "+2"))`` reads ``sum 47 a+5 b+2 ?`` and ends in 4.
    """

    def after(self, step: str, value: int) -> int:
        return apply_step(step, value)


def random_chain(rng: random.Random, family: str, length: int) -> Chain:
    """Any chain, drawn uniformly."""
    return Chain(family, rng.randrange(MODULUS), tuple(rng.choices(FAMILIES[family], k=length)))
