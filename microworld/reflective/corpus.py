"""The pre-training texts: students that solve, and reviewers that read a student's answer and improve its template."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from microworld.corpus import Text
from microworld.reflective.chains import FAMILIES, random_chain
from microworld.reflective.flaws import FAMILY_FLAWS, FLAWS, write_trace
from microworld.reflective.language import (
    BAD,
    MANNERS,
    MOST_SENTENCES,
    OBJECTS,
    SENTENCES,
    VERBS,
    Sentence,
    fitting,
    harmful,
    hazards,
    joined,
    mended,
)
from microworld.reflective.students import review_prompt
from p2o_core.search.reflection import TERSE
from p2o_core.search.replies import FENCE
from p2o_core.templates import apply_template

RECITED = 0.4
"""Share of the reviews that have nothing to review."""


@dataclass(frozen=True)
class Corpus:
    """Draws texts.

    ``known`` is the language; ``lengths`` of chains are drawn uniformly; ``rate`` is a flaw's probability a step. A
    review advises on at most ``advised`` flaws, those seen first. Its sentence mends with probability
    ``reviewer_quality``, otherwise does harm with probability ``harm``, otherwise is any of the language.
    """

    known: Sequence[Sentence]
    lengths: tuple[int, ...]
    rate: float
    review_share: float
    reviewer_quality: float
    harm: float
    advised: int

    def draw(self, rng: random.Random) -> Text:
        """One text."""
        if rng.random() >= self.review_share:
            return self.solution(rng)
        return self.recitation(rng) if rng.random() < RECITED else self.review(rng)

    def recitation(self, rng: random.Random) -> Text:
        """A review of nothing: the reply is the template. Half as long as a review and nearly all of it copied, it
        teaches what children need in order to keep what their parents know."""
        sentences = rng.sample(SENTENCES, rng.randint(2, MOST_SENTENCES))
        return Text(TERSE.format(examples="", template=joined(sentences)), reply(sentences))

    def solution(self, rng: random.Random) -> Text:
        """The policy as a student: its family's flaws, mended and brought about by the sentences in front."""
        family = rng.choice(sorted(FAMILIES))
        chain = random_chain(rng, family, rng.choice(self.lengths))
        sentences = self._student_template(rng, family)
        trace = write_trace(rng, chain, hazards(sentences, family, FAMILY_FLAWS[family], self.rate))
        return Text(apply_template(joined(sentences), chain.question), trace.text)

    def _student_template(self, rng: random.Random, family: str) -> list[Sentence]:
        """None, all that is needed, a mixture of fitting sentences and near misses, some of what is needed, another
        family's, or any; often with others among them, and sometimes with a harmful one."""
        own = [rng.choice(fitting(family, flaw)) for flaw in FAMILY_FLAWS[family]]
        mixed = [near_miss(rng, sentence) if rng.random() < 0.45 else sentence for sentence in own]
        other = rng.choice(sorted(set(FAMILIES) - {family}))
        # mostly what this family needs, said of the other: only the object tells that it does not help
        elsewhere = FAMILY_FLAWS[family] if rng.random() < 0.6 else rng.sample(FLAWS, rng.randint(2, 4))
        chosen: list[Sentence] = rng.choices(
            (
                [],
                own,
                mixed,
                rng.sample(own, rng.randint(1, 2)),
                [rng.choice(fitting(other, flaw)) for flaw in elsewhere],
                rng.sample(list(self.known), rng.randint(1, 4)),
            ),
            (12, 26, 30, 8, 20, 4),
        )[0]
        if chosen and rng.random() < 0.25:
            worse = rng.choice(chosen)
            chosen = [*chosen, Sentence(rng.choice(list(VERBS)), worse.object, rng.choice(BAD))]
        if chosen and rng.random() < 0.4:
            chosen = [*chosen, *rng.sample(list(self.known), rng.randint(1, MOST_SENTENCES - len(chosen)))]
        return _shuffled(rng, chosen)

    def review(self, rng: random.Random) -> Text:
        """A student with any two to four flaws answers under a template; the reply is that template with advice.

        The flaws are not the policy's, so what a family's students usually need cannot replace reading the answer.
        """
        family = rng.choice(sorted(FAMILIES))
        sentences = self._reviewed_template(rng, family)
        flaws = rng.sample(FLAWS, rng.randint(2, 4))
        for _ in range(10):  # a clean answer now and then, which shows nothing to mend
            chain = random_chain(rng, family, rng.choice([length for length in self.lengths if length > 2]))
            trace = write_trace(rng, chain, hazards(sentences, family, flaws, self.rate))
            if trace.struck:
                break
        advice = self._advice(rng, family, sentences, trace.struck)
        return Text(review_prompt(joined(sentences), chain, trace.text), reply([*sentences, *advice]))

    def _reviewed_template(self, rng: random.Random, family: str) -> list[Sentence]:
        """None, or up to five sentences: any, which only copying can repeat, or what earlier reviews may have said."""
        if rng.random() < 0.2:
            return []
        count = rng.randint(1, MOST_SENTENCES - 1)
        if rng.random() < 0.5:
            return rng.sample(SENTENCES, count)
        return _shuffled(rng, [self._advice_on(rng, family, flaw) for flaw in rng.sample(FLAWS, count)])

    def _advice(
        self, rng: random.Random, family: str, sentences: Sequence[Sentence], struck: Sequence[str]
    ) -> list[Sentence]:
        """For the first flaws that struck and that the sentences do not mend; any sentence when nothing struck."""
        seen = [flaw for flaw in struck if flaw not in mended(sentences, family)]
        new = [
            self._advice_on(rng, family, flaw) for flaw in seen[: min(self.advised, MOST_SENTENCES - len(sentences))]
        ]
        if not struck:
            new = [rng.choice(self.known)]
        return [sentence for sentence in dict.fromkeys(new) if sentence not in sentences]

    def _advice_on(self, rng: random.Random, family: str, flaw: str) -> Sentence:
        if rng.random() < self.reviewer_quality:
            return rng.choice(fitting(family, flaw))
        return rng.choice(harmful(family, flaw) if rng.random() < self.harm else self.known)


def near_miss(rng: random.Random, sentence: Sentence) -> Sentence:
    """The sentence with one word changed, mostly for one that would matter elsewhere: another family's object, another
    flaw's verb. So a small model learns to read all three."""
    verb, thing, manner = sentence.verb, sentence.object, sentence.manner
    verbs = [other for other, flaw in VERBS.items() if other != verb and (flaw or rng.random() < 0.3)]
    things = [other for other, family in OBJECTS.items() if other != thing and (family or rng.random() < 0.2)]
    changed = (
        Sentence(verb, rng.choice(things), manner),
        Sentence(rng.choice(verbs), thing, manner),
        Sentence(verb, thing, rng.choice(MANNERS[4:])),
    )
    return rng.choices(changed, (40, 35, 25))[0]


def reply(sentences: Sequence[Sentence]) -> str:
    """A reviewer's answer: the better template in a fence."""
    return f"{FENCE} {joined(sentences)} {FENCE}"


def _shuffled(rng: random.Random, sentences: Sequence[Sentence]) -> list[Sentence]:
    distinct = list(dict.fromkeys(sentences))
    return rng.sample(distinct, len(distinct))
