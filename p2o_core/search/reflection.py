"""A language model as gepa's reflector: it sees failures under a template and writes a better one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal

from p2o_core.config import ReflectionPrompt
from p2o_core.engines.language_models import LanguageModel, Reply
from p2o_core.search.adapter import COMPONENT
from p2o_core.search.proposals import ProposalGuard, Refusal, parse_proposal

MAX_ANSWER_CHARACTERS = 1_500
"""Of a failed answer that the reflector gets to see: long ones repeat themselves."""

PROMPT = """An assistant is given problems. In front of each problem stands an instruction:

<instruction>
{template}
</instruction>

These are problems it was given, what it answered, and what a checker said:

{examples}

Write a better instruction: one that helps the assistant to solve problems of this kind, also ones it has never seen.
Say how to work: which steps to take, what to check, how to write the final answer. Do not mention these problems,
their numbers or their answers. At most {words} words. Write only the new instruction, between ``` and ```."""

EXAMPLE = """## Example {index}
Problem: {question}
Answer of the assistant: {answer}
Checker: {feedback}"""


TERSE = """review {examples}

instruction {template}

advice"""

TERSE_EXAMPLE = "problem {question} answer {answer} checker {feedback}"
REFLECTION_PROMPTS: dict[ReflectionPrompt, tuple[str, str]] = {
    "plain": (PROMPT, EXAMPLE),
    "terse": (TERSE, TERSE_EXAMPLE),  # for policies that were trained on reviews of just this form
}
"""The text around the template and the examples, and one example."""
NO_TEMPLATE = "(none yet)"


@dataclass
class ReflectionCost:
    """The cost of reflection: calls, tokens and dollars; refused proposals by reason, failed attempts by kind."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, reply: Reply, input_price: float, output_price: float) -> None:
        self.calls += 1
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens
        self.dollars += (reply.input_tokens * input_price + reply.output_tokens * output_price) / 1e6
        self.failed.update(reply.failures)


class ModelReflector:
    """Implements gepa's batched reflection protocol. It asks for a refused proposal again, ``attempts`` times in all;
    after that the parent has no child in this step, which costs no metric calls.

    ``archive`` holds templates of earlier searches; they are proposed before anything new. ``prices`` are dollars
    per million input and output tokens.
    """

    def __init__(
        self,
        model: LanguageModel,
        guard: ProposalGuard,
        *,
        attempts: int,
        prices: tuple[float, float] = (0.0, 0.0),
        archive: Sequence[str] = (),
        prompt: ReflectionPrompt = "plain",
    ) -> None:
        self.model = model
        self.guard = guard
        self.attempts = attempts
        self.prices = prices
        self.archive = list(archive)
        self.prompt = prompt
        self.cost = ReflectionCost()
        self.error: Exception | None = None

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, ModelReflector]]:
        """Propose a template for each parent; the proposal is empty where none passed the guard."""
        try:
            found = self._reflect(jobs)
        except Exception as error:  # gepa would log it and go on; kept, the search ends with it
            self.error = error
            raise
        return [(ReflectionProposal({COMPONENT: found[i]} if i in found else {}), self) for i in range(len(jobs))]

    def _reflect(self, jobs: list[ReflectionJob]) -> dict[int, str]:
        """Return the accepted templates by job."""
        found: dict[int, str] = {}
        for index in range(len(jobs)):
            if self.archive:
                found[index] = self.archive.pop(0)
        for _ in range(self.attempts):
            open_jobs = [index for index in range(len(jobs)) if index not in found]
            if not open_jobs:
                break
            prompts = [
                reflection_prompt(*jobs[index][:2], self.guard.max_characters, self.prompt) for index in open_jobs
            ]
            for index, reply in zip(open_jobs, self.model.complete(prompts), strict=True):
                template = self._accepted(reply)
                if template is not None:
                    found[index] = template
        return found

    def reflect(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> tuple[ReflectionProposal, ModelReflector]:
        """Propose for one parent."""
        return self.reflect_many([(candidate, reflective_dataset, components_to_update)])[0]

    def _accepted(self, reply: Reply) -> str | None:
        self.cost.add(reply, *self.prices)
        if reply.text is None:
            return None
        template = parse_proposal(reply.text)
        refusal = self.guard.judge(template)
        if refusal is not None:
            self.cost.refused[refusal.value] += 1
        return None if refusal or isinstance(template, Refusal) else template


def reflection_prompt(
    candidate: Mapping[str, str],
    dataset: Mapping[str, Sequence[Mapping[str, Any]]],
    max_characters: int,
    prompt: ReflectionPrompt = "plain",
) -> str:
    """Write the prompt for one parent and its minibatch."""
    around, example = REFLECTION_PROMPTS[prompt]
    examples = [
        example.format(
            index=index,
            question=record["Inputs"],
            answer=_shortened(str(record["Generated Outputs"])),
            feedback=record["Feedback"],
        )
        for index, record in enumerate(dataset[COMPONENT], start=1)
    ]
    template = candidate[COMPONENT].strip() or NO_TEMPLATE
    words = max_characters // 8  # English words are some six characters long, and a space
    return around.format(template=template, examples="\n\n".join(examples), words=words)


def _shortened(answer: str) -> str:
    return answer if len(answer) <= MAX_ANSWER_CHARACTERS else answer[:MAX_ANSWER_CHARACTERS] + " …"
