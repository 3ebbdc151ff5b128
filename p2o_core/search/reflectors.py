"""Who proposes: the offline reflector, and the one that a configuration names. Every reflector implements gepa's
batched protocol (``BatchReflectionLM``)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal

from p2o_core.config import DemonstrationReflectorConfig, EvolveConfig, PhraseReflectorConfig, TeacherReflectorConfig
from p2o_core.demonstrations import DemonstrationPool
from p2o_core.engines.language_models import LanguageModel
from p2o_core.search.adapter import COMPONENT
from p2o_core.search.demonstrations import DemonstrationReflector
from p2o_core.search.proposals import ProposalGuard
from p2o_core.search.reflection import REFLECTION_PROMPTS, ModelReflector
from p2o_core.templates import Parts, join_templates, parse_template
from p2o_core.types import Problem, SearchCost

Phrases = tuple[str, ...]
PROPOSAL_TRIES = 20
"""Draws for a template that was not proposed before; a repeated one would waste its metric calls."""


class PhraseReflector:
    """Mutates templates made of phrases: add, drop, replace, reorder and cross. A phrase is a sentence, or a template
    written by hand; demonstrations of several phrases follow one another.

    ``archive`` holds templates of earlier searches; they are proposed before anything new, and those ``known`` already
    are not. ``whole``: from the empty template it draws a whole one, not a first phrase.

    It knows the pool's texts and nothing about which of them help; it does not read the feedback. Everything
    it learns about a phrase comes from gepa keeping or dropping the templates it is in.
    """

    def __init__(
        self,
        pool: Sequence[str],
        *,
        max_phrases: int,
        rng: random.Random,
        exclude: Sequence[str] = (),
        archive: Sequence[str] = (),
        known: Sequence[str] = (),
        whole: bool = False,
    ) -> None:
        self.pool = tuple(phrase for phrase in dict.fromkeys(map(str.strip, pool)) if phrase not in exclude)
        if len(self.pool) < 2:
            raise ValueError(f"the phrase pool needs at least two different phrases, got {list(self.pool)}")
        self.max_phrases = max_phrases
        self.rng = rng
        self.whole = whole
        self.proposed: set[Phrases] = {()}
        self.mates: list[Phrases] = []
        self._made: dict[str, Phrases] = {phrase: (phrase,) for phrase in self.pool}
        self.archive = [self.split(template) for template in archive]
        self.proposed |= {self.split(template) for template in known}

    def split(self, template: str) -> Phrases:
        """Split a template into its phrases: as it was made, otherwise lines of its instruction and demonstrations."""
        if template in self._made:
            return self._made[template]
        parts = parse_template(template)
        lines = [line for line in parts.instruction.splitlines() if line]
        return tuple(lines + [str(Parts("", (turn,))) for turn in parts.turns])

    def _joined(self, phrases: Phrases) -> str:
        template = join_templates(phrases) if phrases else ""
        self._made[template] = phrases
        return template

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, PhraseReflector]]:
        """Propose one new template for each parent."""
        for candidate, _, _ in jobs:
            phrases = self.split(candidate[COMPONENT])
            if phrases and phrases not in self.mates:
                self.mates.append(phrases)
        return [(ReflectionProposal({COMPONENT: self._propose(job[0][COMPONENT])}), self) for job in jobs]

    def reflect(
        self, candidate: dict[str, str], reflective_dataset: object, components_to_update: list[str]
    ) -> tuple[ReflectionProposal, PhraseReflector]:
        """Propose for one parent."""
        return self.reflect_many([(candidate, {}, components_to_update)])[0]

    def _propose(self, template: str) -> str:
        if self.archive:
            child = self.archive.pop(0)
            self.proposed.add(child)
            return self._joined(child)
        parent = self.split(template)
        child = parent
        for _ in range(PROPOSAL_TRIES):
            drawn = self.whole and not parent
            child = self._draw() if drawn else self.rng.choice(self._moves(parent))(parent)[: self.max_phrases]
            if child not in self.proposed:
                break
        self.proposed.add(child)
        return self._joined(child)

    def random_template(self) -> str:
        """Draw one to ``max_phrases`` phrases at random: the control that GEPA has to beat."""
        return self._joined(self._draw())

    def _draw(self) -> Phrases:
        count = self.rng.randint(1, min(self.max_phrases, len(self.pool)))
        return tuple(self.rng.sample(self.pool, count))

    def _moves(self, parent: Phrases) -> list[Callable[[Phrases], Phrases]]:
        """Return the operators that can change this parent."""
        moves: list[Callable[[Phrases], Phrases]] = []
        if len(parent) < min(self.max_phrases, len(self.pool)):
            moves += [self._add]
        if parent:
            moves += [self._replace]
        if len(parent) > 1:
            moves += [self._drop, self._reorder]
        if any(mate != parent for mate in self.mates):
            moves += [self._cross]
        return moves

    def _unused(self, phrases: Phrases) -> str:
        return self.rng.choice([phrase for phrase in self.pool if phrase not in phrases])

    def _add(self, parent: Phrases) -> Phrases:
        where = self.rng.randint(0, len(parent))
        return (*parent[:where], self._unused(parent), *parent[where:])

    def _replace(self, parent: Phrases) -> Phrases:
        where = self.rng.randrange(len(parent))
        return (*parent[:where], self._unused(parent), *parent[where + 1 :])

    def _drop(self, parent: Phrases) -> Phrases:
        where = self.rng.randrange(len(parent))
        return parent[:where] + parent[where + 1 :]

    def _reorder(self, parent: Phrases) -> Phrases:
        return tuple(self.rng.sample(parent, len(parent)))

    def _cross(self, parent: Phrases) -> Phrases:
        mate = self.rng.choice([mate for mate in self.mates if mate != parent])
        union = tuple(dict.fromkeys(parent + mate))
        keep = set(self.rng.sample(union, self.rng.randint(max(1, len(union) // 2), len(union))))
        return tuple(phrase for phrase in union if phrase in keep)


Reflector = PhraseReflector | DemonstrationReflector | ModelReflector


def make_reflector(
    config: EvolveConfig,
    pool: Sequence[str],
    hard: Sequence[Problem],
    model: LanguageModel | None,
    rng: random.Random,
    archive: Sequence[str] = (),
    known: Sequence[str] = (),
    demonstrations: DemonstrationPool | None = None,
) -> Reflector:
    """The reflector of ``config``. It proposes the ``archive`` first, and none of the templates ``known`` already.

    Raises:
        ValueError: it needs a language model, and there is none.
    """
    settings = config.reflector
    if isinstance(settings, DemonstrationReflectorConfig):
        if demonstrations is None:
            raise ValueError("reflector 'demonstrations' needs a pool of them")
        return DemonstrationReflector(demonstrations, rng=rng, archive=archive, known=known)
    if isinstance(settings, PhraseReflectorConfig):
        whole = config.search == "online"  # which scores nothing beforehand: a first guess is a whole template
        return PhraseReflector(pool, **settings.options(), rng=rng, archive=archive, known=known, whole=whole)
    if model is None:
        raise ValueError(f"reflector {settings.type!r} needs a language model")
    prices = (
        (settings.input_price, settings.output_price) if isinstance(settings, TeacherReflectorConfig) else (0.0, 0.0)
    )
    guard = ProposalGuard(hard, max_characters=settings.max_characters, asked=REFLECTION_PROMPTS[settings.prompt][0])
    guard.seen |= set(known)
    return ModelReflector(
        model, guard, attempts=settings.attempts, prices=prices, archive=archive, prompt=settings.prompt
    )


def reflection_cost(reflector: Reflector, config: EvolveConfig) -> SearchCost:
    """What the reflections took. Tokens that the policy itself wrote are the experiment's; a teacher's are not."""
    if not isinstance(reflector, ModelReflector):
        return SearchCost()
    spent, own = reflector.cost, config.reflector.type == "self"
    return SearchCost(
        tokens=spent.output_tokens if own else 0,
        prompt_tokens=spent.input_tokens if own else 0,
        reflection_calls=spent.calls,
        reflection_input_tokens=spent.input_tokens,
        reflection_output_tokens=spent.output_tokens,
        reflection_dollars=round(spent.dollars, 6),
        refused=dict(sorted(spent.refused.items())),
        failed=dict(sorted(spent.failed.items())),
    )
