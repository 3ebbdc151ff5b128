"""What a student does wrong: six flaws, of which every family of problems suffers three.

The first step of a chain is always clean, so problems of one step need no instruction. At every later step each
flaw strikes by itself:

``stop``   boxes the value it has
``skip``   leaves the next step out
``guess``  writes ``about`` and the old value
``slip``   writes ``nearly`` and a value that is one off
``leap``   writes ``roughly`` and a value that is seven off
``reset``  writes ``anew`` and goes on from the start
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from microworld.reflective.chains import LABELS, MODULUS, Chain, apply_step

FLAWS = ("stop", "skip", "guess", "slip", "leap", "reset")
FAMILY_FLAWS: dict[str, tuple[str, ...]] = {
    "sum": ("stop", "guess", "leap"),
    "fall": ("skip", "slip", "reset"),
    "growth": ("guess", "leap", "reset"),
    "debt": ("stop", "skip", "slip"),
}
"""The policy's own flaws; each flaw troubles two families, so a family's advice cannot be known without reading."""
MARKS = {"guess": "about", "slip": "nearly", "leap": "roughly", "reset": "anew"}
OFF = {"slip": 1, "leap": 7}
"""How far a value is off, against the direction of the family, so that flaws add up and hardly ever cancel."""
RISING = ("sum", "growth")

Hazards = Mapping[str, float]
"""Probability by flaw that it strikes at a step; a missing one never does."""


@dataclass(frozen=True)
class Trace:
    """A student's answer and the flaws that struck, each once, in order."""

    text: str
    struck: tuple[str, ...]


def flawed_value(flaw: str, chain: Chain, old: int, new: int) -> int:
    """What stands instead of ``new``."""
    if flaw == "guess":
        return old
    if flaw == "reset":
        return chain.start
    return (new + (-OFF[flaw] if chain.family in RISING else OFF[flaw])) % MODULUS


def write_trace(rng: random.Random, chain: Chain, hazards: Hazards) -> Trace:
    """Work the chain with flaws: ``a+5 2 b+2 about 2 \\boxed{ 2 }``."""
    words: list[str] = []
    struck: list[str] = []

    def strikes(flaw: str) -> bool:
        hit = rng.random() < hazards.get(flaw, 0.0)
        if hit:
            struck.append(flaw)
        return hit

    value, index, length = chain.start, 0, len(chain.steps)
    while index < length:
        if index > 0 and strikes("stop"):
            break
        if index > 0 and index + 1 < length and strikes("skip"):
            index += 1
        old, value = value, apply_step(chain.steps[index], value)
        words += [LABELS[index], chain.steps[index]]
        if index > 0:
            flaw = next((flaw for flaw in MARKS if strikes(flaw)), None)
            if flaw is not None:
                words.append(MARKS[flaw])
                value = flawed_value(flaw, chain, old, value)
        words.append(str(value))
        index += 1
    return Trace(" ".join([*words, "\\boxed{", str(value), "}"]), tuple(dict.fromkeys(struck)))


def accident(chain: Chain, hazards: Hazards) -> float:
    """Probability that a flawed trace ends in the right answer all the same."""
    length, ended = len(chain.steps), 0.0
    # probability by (value, flawed so far), before each step
    before: list[dict[tuple[int, bool], float]] = [{} for _ in range(length + 1)]
    before[0][chain.start, False] = 1.0
    answer = chain.values[-1]
    for index in range(length):
        for (value, flawed), here in before[index].items():
            weight = here
            if index > 0:
                stop = hazards.get("stop", 0.0)
                ended += weight * stop if value == answer else 0.0
                weight *= 1 - stop
            skip = hazards.get("skip", 0.0) if 0 < index < length - 1 else 0.0
            for step, taken, wrong in ((index, weight * (1 - skip), flawed), (index + 1, weight * skip, True)):
                if taken:
                    _spread(before[step + 1], chain, step, value, wrong, taken, hazards)
    return ended + before[length].get((answer, True), 0.0)


def _spread(
    after: dict[tuple[int, bool], float],
    chain: Chain,
    step: int,
    old: int,
    flawed: bool,
    weight: float,
    hazards: Hazards,
) -> None:
    new = apply_step(chain.steps[step], old)
    for flaw in MARKS if step > 0 else ():
        hit = hazards.get(flaw, 0.0)
        if hit:
            key = flawed_value(flaw, chain, old, new), True
            after[key] = after.get(key, 0.0) + weight * hit
            weight *= 1 - hit
    after[new, flawed] = after.get((new, flawed), 0.0) + weight
