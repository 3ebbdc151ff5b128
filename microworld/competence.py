"""The preconditions of the phenomenon, measured on the base policy before any experiment starts.

The base must be competent under fitting sentences (or no template can be found), incapable without them (or there
is nothing to rescue) and good at easy problems. A base that is not fails here, loudly, not ten minutes later.
"""

from __future__ import annotations

import random

from microworld.problems import FAMILIES, random_chain
from microworld.sentences import fitting
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.schemas import BadInput
from p2o_core.seeding import derive_seed

CHAINS = 64
"""Chains a cell of the table: a standard error of at most 0.06."""


class IncompetentBase(BadInput):
    """The pre-trained base lacks a precondition; the message says which and what to change."""


def measure(engine: RolloutEngine, lengths: tuple[int, ...], *, max_new_tokens: int, seed: int) -> dict[str, dict]:
    """``{family: {length: {"bare" | "fitting": solve rate}}}`` at temperature 1."""
    rng = random.Random(derive_seed(seed, "competence"))
    table: dict[str, dict] = {}
    for family in sorted(FAMILIES):
        templates = {"bare": "", "fitting": " ".join(sentence.text for sentence in fitting(family))}
        for length in lengths:
            chains = [random_chain(rng, family, length) for _ in range(CHAINS)]
            for name, template in templates.items():
                requests = [
                    RolloutRequest(f"{family}-{length}-{index}", chain.question, template, (0,), seed)
                    for index, chain in enumerate(chains)
                ]
                completions = engine.generate(requests, Sampling(1.0, max_new_tokens))
                solved = [
                    completion.text.endswith(f"\\boxed{{ {chain.values[-1]} }}")
                    for completion, chain in zip(completions, chains, strict=True)
                ]
                table.setdefault(family, {}).setdefault(str(length), {})[name] = sum(solved) / CHAINS
    return table


def check(
    table: dict[str, dict], *, easy_length: int, hard_lengths: tuple[int, ...], bare_at_most: float = 0.02
) -> None:
    """Raises IncompetentBase unless easy >= 0.9 bare, hard <= ``bare_at_most`` bare and >= 0.4 under fitting
    sentences (means over the hard lengths)."""
    for family, by_length in table.items():
        easy = by_length[str(easy_length)]["bare"]
        bare, told = (
            sum(by_length[str(length)][context] for length in hard_lengths) / len(hard_lengths)
            for context in ("bare", "fitting")
        )
        for holds, what in (
            (easy >= 0.9, f"solves only {easy:.2f} of the easy {family} chains bare (0.9 needed)"),
            (bare <= bare_at_most, f"solves {bare:.2f} of the hard {family} chains bare (at most {bare_at_most})"),
            (told >= 0.4, f"solves {told:.2f} of the hard {family} chains when told how (0.4 needed)"),
        ):
            if not holds:
                raise IncompetentBase(
                    f"the pre-trained base {what}. Mend: more prepare.pretrain_steps, or shorter prepare.hard_lengths."
                )
