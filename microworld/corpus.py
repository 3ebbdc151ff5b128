"""The pre-training texts: a lazy writer that works a chain step by step and may stop at every step.

A text is an optional set of instruction sentences, a problem, and a trace ``a +5 52 b +2 54 \\boxed{ 54 }``.
Before every step after the first the writer goes on with the probability its sentences give it
(:func:`microworld.sentences.go_on_probability`) and otherwise boxes the value it has. A value reached early is
something a small model can learn to write; the true answer of an unworked chain would be noise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from microworld.problems import FAMILIES, LABELS, Chain, random_chain
from microworld.sentences import Sentence, all_sentences, fitting, go_on_probability
from p2o_core.templates import apply_template


@dataclass(frozen=True)
class Text:
    """A prompt as the policy sees it (user content) and the writer's answer."""

    prompt: str
    completion: str


def write_trace(rng: random.Random, chain: Chain, go_on: float) -> str:
    """Steps as far as the writer goes, then the boxed value it has by then."""
    words: list[str] = []
    reached = chain.start
    for index, (label, step, value) in enumerate(zip(LABELS, chain.steps, chain.values, strict=False)):
        if index > 0 and rng.random() >= go_on:
            break
        reached = value
        words += [label, step, str(reached)]
    return " ".join([*words, "\\boxed{", str(reached), "}"])


def _draw_sentences(
    rng: random.Random, family: str, fitting_share: float, bare_share: float, known: Sequence[Sentence]
) -> list[Sentence]:
    """No sentences, fitting ones with up to one other among them, or any up to four."""
    kind = rng.random()
    if kind < bare_share:
        return []
    if kind < bare_share + fitting_share:
        chosen = rng.sample(fitting(family), k=rng.choice((2, 3, 3, 4)))
        if rng.random() < 0.3:
            chosen.append(rng.choice([s for s in known if s not in chosen]))
        rng.shuffle(chosen)
        return chosen
    return rng.sample(known, k=rng.randint(1, 4))


def draw_text(
    rng: random.Random, *, lengths: tuple[int, ...], fitting_share: float, bare_share: float, distractors: int = 0
) -> Text:
    """One text; ``lengths`` are drawn uniformly."""
    family = rng.choice(sorted(FAMILIES))
    chain = random_chain(rng, family, rng.choice(lengths))
    chosen = _draw_sentences(rng, family, fitting_share, bare_share, all_sentences(distractors))
    template = " ".join(sentence.text for sentence in chosen)
    return Text(
        prompt=apply_template(template, chain.question),
        completion=write_trace(rng, chain, go_on_probability(chosen, family)),
    )
