"""Chains of arithmetic steps modulo 100, in two families, and their splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from p2o_core.types import Problem

MODULUS = 100
TRIES = 10_000
"""Draws for a problem not taken yet; short chains are few (300 of one step a family)."""
LABELS = "abcdefghij"
FAMILIES: dict[str, tuple[str, ...]] = {"sum": ("+2", "+5", "+8"), "product": ("*3", "*7", "*9")}


@dataclass(frozen=True)
class Chain:
    """``start`` followed by ``steps``; ``values[k]`` is the value after step k.

    Example: ``Chain("sum", 47, ("+5", "+2"))`` reads ``sum 47 a+5 b+2 ?`` and ends in 54.
    """

    family: str
    start: int
    steps: tuple[str, ...]

    @property
    def values(self) -> list[int]:
        values, value = [], self.start
        for step in self.steps:
            value = self.after(step, value)
            values.append(value)
        return values

    def after(self, step: str, value: int) -> int:
        """The value after one step."""
        operand = int(step[1:])
        return (value + operand if step[0] == "+" else value * operand) % MODULUS

    @property
    def question(self) -> str:
        steps = " ".join(f"{label}{step}" for label, step in zip(LABELS, self.steps, strict=False))
        return f"{self.family} {self.start} {steps} ?"

    @property
    def has_lucky_stop(self) -> bool:
        """The answer occurs on the way: stopping early would score without the work."""
        *earlier, answer = [self.start, *self.values]
        return answer in earlier


AnyChain = TypeVar("AnyChain", bound=Chain)


def random_chain(rng: random.Random, family: str, length: int) -> Chain:
    """A chain without a lucky stop, drawn uniformly."""
    while True:
        chain = Chain(family, rng.randrange(MODULUS), tuple(rng.choices(FAMILIES[family], k=length)))
        if not chain.has_lucky_stop:
            return chain


def draw_split(
    rng: random.Random, split: str, tiers: Sequence[tuple[str, int, int]], taken: set[str]
) -> Iterator[Problem]:
    """This world's problems of one split. See :func:`draw_problems`."""
    return draw_problems(rng, split, tiers, taken, sorted(FAMILIES), random_chain, lambda chain: True)


def draw_problems(
    rng: random.Random,
    split: str,
    tiers: Sequence[tuple[str, int, int]],
    taken: set[str],
    families: Sequence[str],
    draw: Callable[[random.Random, str, int], AnyChain],
    fits: Callable[[AnyChain], bool],
) -> Iterator[Problem]:
    """``count`` distinct problems for each ``(difficulty, length, count)``, families in turn; none in ``taken``.

    Problems are added to ``taken``, so no question occurs in two splits. A world draws its chains by ``draw``, and
    takes those that ``fits`` lets pass.

    Raises:
        ValueError: there are not that many chains of that length.
    """
    for difficulty, length, count in tiers:
        for index in range(count):
            family = families[index % len(families)]
            draws = (draw(rng, family, length) for _ in range(TRIES))
            chain = next((chain for chain in draws if chain.question not in taken and fits(chain)), None)
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
