"""Problems made here, by seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from p2o_core.config import Section
from p2o_core.schemas import BadInput

Record = dict[str, Any]


class Arithmetic(Section):
    """Sums of two numbers; the tier is the number of their digits."""

    type: Literal["arithmetic"] = "arithmetic"
    digits: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (1, 2), min_length=1, description="digits of both numbers"
    )
    count: PositiveInt = Field(
        ..., description="problems for each number of digits, as far as there are different ones"
    )
    shard: int = Field(0, ge=0, le=1, description="0 or 1: sums of one shard never occur in the other")

    def records(self, rng: random.Random) -> Iterator[Record]:
        """A sum belongs to the shard that a hash of its numbers says: held-out sums are never trained on, and look the
        same (the parity of a + b, say, would make all trained answers even and all held-out ones odd)."""
        for digits in self.digits:
            low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits
            numbers = range(low, high)
            if digits <= 2:
                pairs = [(a, b) for a in numbers for b in numbers if _shard(a, b) == self.shard]
                chosen = rng.sample(pairs, min(self.count, len(pairs)))
            else:
                drawn: dict[tuple[int, int], None] = {}
                while len(drawn) < self.count:
                    a, b = rng.randrange(low, high), rng.randrange(low, high)
                    if _shard(a, b) == self.shard:
                        drawn[a, b] = None
                chosen = list(drawn)
            for a, b in chosen:
                yield {
                    "id": f"sum-{a}-{b}",
                    "question": f"What is {a} + {b}?",
                    "answer": str(a + b),
                    "difficulty": f"{digits}-digit",
                }


class NumberWords(Section):
    """Numbers in words, to be written in digits; the tier is the number of digits.

    The form ``arrow`` says nothing of what is wanted, as in a task that only examples show: SmolLM2-135M chats about
    ``seven hundred and twelve ->`` (3 digits: 0 of 96 right) and goes on where three examples precede it (31 of 96).
    """

    type: Literal["number-words"] = "number-words"
    digits: tuple[Annotated[int, Field(ge=1, le=6)], ...] = Field(
        (2, 3), min_length=1, description="digits of the numbers, 1 to 6"
    )
    count: PositiveInt = Field(..., description="problems for each number of digits, as far as there are any")
    shard: int = Field(0, ge=0, le=1, description="0 or 1: numbers of one shard never occur in the other")
    form: Literal["question", "arrow"] = Field(
        "question", description="question: says what is wanted; arrow: the words and an arrow, no more"
    )

    def records(self, rng: random.Random) -> Iterator[Record]:
        """As for sums, a hash says which shard a number belongs to."""
        asked = {"question": "What is {} as a number? Answer with the number only.", "arrow": "{} ->"}[self.form]
        for digits in self.digits:
            low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits
            numbers = [number for number in range(low, high) if _shard(number, digits) == self.shard]
            for number in rng.sample(numbers, min(self.count, len(numbers))):
                yield {
                    "id": f"number-{number}",
                    "question": asked.format(number_words(number)),
                    "answer": str(number),
                    "difficulty": f"{digits}-digit",
                }


_UP_TO_NINETEEN = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def number_words(number: int) -> str:
    """A number below 1,000,000 in British English words.

    >>> number_words(749), number_words(300), number_words(12), number_words(20_005)
    ('seven hundred and forty-nine', 'three hundred', 'twelve', 'twenty thousand and five')
    """
    ones, tens = _UP_TO_NINETEEN.split(), _TENS.split()
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        count, rest = divmod(number, unit)
        if count:
            joint = " and " if 0 < rest < 100 else " " * (rest > 0)
            return f"{number_words(count)} {name}{joint}" + (number_words(rest) if rest else "")
    if number < 20:
        return ones[number]
    return tens[number // 10 - 2] + (f"-{ones[number % 10]}" if number % 10 else "")


def _shard(a: int, b: int) -> int:
    return hashlib.sha256(f"{a}+{b}".encode()).digest()[0] % 2


class ReasoningGym(Section):
    """A task of the package reasoning-gym (optional), by name; problems whose answers math-verify reads fit best."""

    type: Literal["reasoning-gym"] = "reasoning-gym"
    task: str = Field(..., description="task name, as chain_sum")
    count: PositiveInt = Field(..., description="problems")
    options: dict[str, Any] = Field({}, description="the task's own settings")

    def records(self, rng: random.Random) -> Iterator[Record]:
        """Raises BadInput when the package is missing or does not know the task."""
        try:
            import reasoning_gym
        except ImportError as error:
            raise BadInput("prepare: reasoning-gym is not installed. Mend: pip install reasoning-gym") from error
        try:
            made = reasoning_gym.create_dataset(self.task, size=self.count, seed=rng.randrange(2**31), **self.options)
        except (ValueError, TypeError) as error:
            raise BadInput(
                f"prepare: reasoning-gym task {self.task!r}: {error}. Mend: correct name or options."
            ) from error
        for index, entry in enumerate(made):
            yield {
                "id": f"{self.task}-{index}",
                "question": entry["question"],
                "answer": str(entry["answer"]),
                "difficulty": self.task,
            }


Generator = Annotated[Arithmetic | NumberWords | ReasoningGym, Field(discriminator="type")]
