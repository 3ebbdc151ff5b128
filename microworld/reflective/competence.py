"""The preconditions of the phenomenon, measured on the base policy before any experiment starts.

Of solving: easy problems bare; hard ones hardly ever bare, often under fitting sentences, and neither under another
family's nor under fitting ones with a harmful one among them. Of reviewing: the advice on the policy's own answers
mends its flaws, that on a stranger's does not, and a reply repeats the sentences of the template it was shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from microworld.competence import IncompetentBase
from microworld.reflective.chains import FAMILIES, Chain
from microworld.reflective.flaws import FAMILY_FLAWS, FLAWS
from microworld.reflective.language import SENTENCES, Sentence, fitting, harmful, joined, mended
from microworld.reflective.problems import sound_chain
from microworld.reflective.students import failed_trace, is_right, review_prompt
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.search.proposals import Refusal, parse_proposal
from p2o_core.seeding import derive_seed

CHAINS = 256
"""A cell of the table of solving: a standard error of at most 0.032."""
REVIEWS = 128
"""A cell of the table of reviewing, 0.045."""
GENERATIONS = 3
"""Reviews in a row, each of a failure under what the last one wrote."""
NO_HELP = 0.08
"""Above the bare solve rate: two standard errors, and a tiny model's blurred reading."""
WRITTEN = {sentence.text: sentence for sentence in SENTENCES}

Solving = dict[str, dict[str, float]]
Reviewing = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Examination:
    """What the base is asked, and how."""

    engine: RolloutEngine
    known: Sequence[Sentence]
    easy_length: int
    hard_lengths: tuple[int, ...]
    rate: float
    max_new_tokens: int
    seed: int

    def measure(self) -> dict[str, dict]:
        """``{"solving": {family: {context: solve rate}}, "reviewing": {family: {what: share}}}`` at temperature 1."""
        rng = random.Random(derive_seed(self.seed, "competence"))
        solving = {family: self._solving(rng, family) for family in sorted(FAMILIES)}
        return {"solving": solving, "reviewing": {family: self._reviewing(rng, family) for family in sorted(FAMILIES)}}

    def _solving(self, rng: random.Random, family: str) -> dict[str, float]:
        own = FAMILY_FLAWS[family]
        others = sorted(set(FAMILIES) - {family})

        def told(family: str, flaws: Sequence[str]) -> list[Sentence]:
            return [rng.choice(fitting(family, flaw)) for flaw in flaws]

        contexts: dict[str, Callable[[], list[Sentence]]] = {
            "bare": list,
            "fitting": lambda: told(family, own),
            "two_fitting": lambda: told(family, rng.sample(own, 2)),
            "fitting_among_six": lambda: _shuffled(rng, [*told(family, own), *rng.sample(list(self.known), 3)]),
            "other_family": lambda: told(rng.choice(others), own),
            "harmful": lambda: _shuffled(rng, [*told(family, own), rng.choice(harmful(family, rng.choice(FLAWS)))]),
        }
        hard = [self._chain(rng, family) for _ in range(CHAINS)]
        easy = [sound_chain(rng, family, self.easy_length, self.rate) for _ in range(CHAINS)]
        table = {"easy": self._solved(easy, [""] * CHAINS)}
        for name, draw in contexts.items():
            table[name] = self._solved(hard, [joined(draw()) for _ in hard])
        return table

    def _chain(self, rng: random.Random, family: str) -> Chain:
        return sound_chain(rng, family, rng.choice(self.hard_lengths), self.rate)

    def _solved(self, chains: Sequence[Chain], templates: Sequence[str]) -> float:
        asked = [(chain.question, template) for chain, template in zip(chains, templates, strict=True)]
        answers = self._answers(asked)
        return sum(is_right(answer, chain) for answer, chain in zip(answers, chains, strict=True)) / len(chains)

    def _answers(self, asked: Sequence[tuple[str, str]]) -> list[str]:
        requests = [
            RolloutRequest(str(index), question, template, (0,), self.seed)
            for index, (question, template) in enumerate(asked)
        ]
        return [completion.text for completion in self.engine.generate(requests, Sampling(1.0, self.max_new_tokens))]

    def _reviewing(self, rng: random.Random, family: str) -> dict[str, float]:
        """``mends_own``: share of reviews of own bare failures with a sentence that mends one of the family's flaws;
        ``mends_stranger``: the same where the answer is a stranger's; ``harms``: share of the first with one that does
        harm; ``copied``: share of a template's sentences that the review of a failure under it repeats, over three
        generations; ``complete``: share of the last generation that mends all of the family's flaws and does no harm;
        ``malformed``: replies that are no list of sentences."""
        foreign = [flaw for flaw in FLAWS if flaw not in FAMILY_FLAWS[family]]
        strange = [failed_trace(rng, family, self.hard_lengths, foreign, self.rate) for _ in range(REVIEWS)]
        strangers_advice = self._replies([("", chain, trace.text) for chain, trace in strange])
        generations: list[list[list[str]]] = []
        copied: list[bool] = []
        parents: list[list[str]] = [[] for _ in range(REVIEWS)]
        for _ in range(GENERATIONS):
            parents, children = self._generation(rng, family, parents)
            copied += [s in child for parent, child in zip(parents, children, strict=True) for s in parent]
            generations.append(children)
            parents = children
        replies = [reply for generation in generations for reply in generation]
        return {
            "mends_own": _share(generations[0], lambda reply: any(s.helps and s.family == family for s in reply)),
            "mends_stranger": _share(
                strangers_advice, lambda reply: any(s.helps and s.family == family for s in reply)
            ),
            "harms": _share(generations[0], lambda reply: any(s.harms and s.family == family for s in reply)),
            "copied": sum(copied) / max(1, len(copied)),
            "complete": _share(parents, lambda reply: mended(reply, family) >= set(FAMILY_FLAWS[family])),
            "malformed": sum(not reply for reply in replies) / len(replies),
        }

    def _generation(
        self, rng: random.Random, family: str, templates: Sequence[list[str]]
    ) -> tuple[list[list[str]], list[list[str]]]:
        """The templates under which a problem was failed, and what the review of each failure wrote."""
        chains = [self._chain(rng, family) for _ in templates]
        texts = [" ".join(template) for template in templates]
        answers = self._answers([(chain.question, text) for chain, text in zip(chains, texts, strict=True)])
        failed = [
            index
            for index, (answer, chain) in enumerate(zip(answers, chains, strict=True))
            if not is_right(answer, chain)
        ]
        children = self._replies([(texts[index], chains[index], answers[index]) for index in failed])
        return [templates[index] for index in failed], children

    def _replies(self, cases: Sequence[tuple[str, Chain, str]]) -> list[list[str]]:
        """The sentences of each review; none where it cannot be parsed."""
        found = []
        for text in self._answers([(review_prompt(*case), "") for case in cases]):
            proposal = parse_proposal(text)
            found.append([] if isinstance(proposal, Refusal) else sentences(proposal))
        return found


def sentences(template: str) -> list[str]:
    """Three words each; none where one of them is no sentence of the language."""
    words = template.split()
    found = [" ".join(words[first : first + 3]) for first in range(0, len(words), 3)]
    return found if all(sentence in WRITTEN for sentence in found) else []


def _share(replies: Sequence[Sequence[str]], holds: Callable[[list[Sentence]], bool]) -> float:
    return sum(holds([WRITTEN[sentence] for sentence in reply]) for reply in replies) / max(1, len(replies))


def _shuffled(rng: random.Random, chosen: list[Sentence]) -> list[Sentence]:
    return rng.sample(chosen, len(chosen))


def check(table: dict[str, dict], *, bare_at_most: float, reviewer_quality: float) -> None:
    """Raises IncompetentBase, which names all that is wrong, unless every family passes. A reviewer of no quality
    cannot be seen to read."""
    wrong = [
        what.format(family=family, **table["solving"][family], **table["reviewing"][family])
        for family in table["solving"]
        for holds, what in _conditions(table, family, bare_at_most, reviewer_quality)
        if not holds
    ]
    if wrong:
        raise IncompetentBase(f"the pre-trained base {'; '.join(wrong)}. Mend: more prepare.pretrain_steps.")


def _conditions(table: dict[str, dict], family: str, bare_at_most: float, quality: float) -> list[tuple[bool, str]]:
    """What must hold, and what is wrong where it does not."""
    rate, review = table["solving"][family], table["reviewing"][family]
    bare, told = rate["bare"], rate["fitting"]
    return [
        (rate["easy"] >= 0.9, "solves only {easy:.2f} of the easy {family} chains bare (0.9 needed)"),
        (bare <= bare_at_most, f"solves {bare:.3f} of the hard {family} chains bare (at most {bare_at_most})"),
        (told >= 0.4, "solves {fitting:.2f} of the hard {family} chains when told how (0.4 needed)"),
        (
            rate["other_family"] <= bare + NO_HELP,
            "solves {other_family:.2f} of the hard {family} chains under another family's sentences (no more than "
            f"{NO_HELP} above bare, {bare:.2f})",
        ),
        (
            rate["harmful"] <= told / 3,
            "solves {harmful:.2f} of the hard {family} chains with a harmful sentence among fitting ones (at most a "
            "third of {fitting:.2f})",
        ),
        (
            review["mends_own"] - review["mends_stranger"] >= quality / 2,
            "mends own {family} failures in {mends_own:.2f} of its reviews and a stranger's in {mends_stranger:.2f}: "
            f"it does not read (a difference of {quality / 2:.2f} needed)",
        ),
        (
            review["copied"] >= 0.8,
            "repeats {copied:.2f} of a template's sentences when it reviews {family} (0.8 needed)",
        ),
    ]
