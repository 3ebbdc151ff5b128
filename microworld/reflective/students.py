"""Other students: their answers are what a reviewer reads in place of the policy's own, as a control."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from microworld.reflective.chains import FAMILIES, Chain, random_chain
from microworld.reflective.flaws import FAMILY_FLAWS, FLAWS, Trace, write_trace
from p2o_core.search.adapter import COMPONENT, feedback
from p2o_core.search.reflection import reflection_prompt
from p2o_core.types import VerdictStatus

Stranger = dict[str, str]
"""``kind`` (the family), ``question``, ``answer`` and ``feedback`` of one failure."""


def is_right(answer: str, chain: Chain) -> bool:
    """The answer ends with the right value in its box."""
    return answer.endswith(f"\\boxed{{ {chain.values[-1]} }}")


def checkers_word(answer: str, chain: Chain) -> str:
    """What the search's feedback says of an answer that ends in a box."""
    status = VerdictStatus.CORRECT if is_right(answer, chain) else VerdictStatus.WRONG
    return feedback(status, str(chain.values[-1]))


def review_prompt(template: str, chain: Chain, answer: str) -> str:
    """What the search asks its reflector with the terse prompt; the corpus asks in just this form."""
    record: dict[str, Any] = {
        "Inputs": chain.question,
        "Generated Outputs": answer,
        "Feedback": checkers_word(answer, chain),
    }
    return reflection_prompt({COMPONENT: template}, {COMPONENT: [record]}, max_characters=0, prompt="terse")


def failed_trace(
    rng: random.Random, family: str, lengths: Collection[int], flaws: Collection[str], rate: float
) -> tuple[Chain, Trace]:
    """A bare student with these flaws fails on a chain of one of these lengths."""
    while True:
        chain = random_chain(rng, family, rng.choice(sorted(lengths)))
        trace = write_trace(rng, chain, dict.fromkeys(flaws, rate))
        if trace.struck and not is_right(trace.text, chain):
            return chain, trace


def strangers(seed: int, count: int, lengths: Collection[int], rate: float) -> list[Stranger]:
    """``count`` failures a family, of students who have just the flaws that the policy does not have there."""
    rng = random.Random(seed)
    found = []
    for family in sorted(FAMILIES):
        flaws = [flaw for flaw in FLAWS if flaw not in FAMILY_FLAWS[family]]
        for _ in range(count):
            chain, trace = failed_trace(rng, family, lengths, flaws, rate)
            word = checkers_word(trace.text, chain)
            found.append({"kind": family, "question": chain.question, "answer": trace.text, "feedback": word})
    return found
