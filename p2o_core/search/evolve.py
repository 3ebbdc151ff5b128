"""One search: split the hard set, let gepa evolve templates, keep the greedy cover, score it on fresh problems."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import NamedTuple

import gepa
from gepa.core.state import GEPAState

from p2o_core.config import EvolveConfig, PromptStyle
from p2o_core.cover import greedy_cover
from p2o_core.demonstrations import DemonstrationPool, without_own
from p2o_core.engines.base import RolloutEngine, Sampling
from p2o_core.engines.language_models import ENDPOINT_DOWN, LanguageModel
from p2o_core.search.adapter import COMPONENT, NO_RESCUE, Rescue, TemplateAdapter
from p2o_core.search.racing import Race
from p2o_core.search.reflection import ModelReflector
from p2o_core.search.reflectors import Reflector, make_reflector, reflection_cost
from p2o_core.search.sampling import DistinctParentSampling
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier, Completion, Problem, SearchCost, Template, VerdictStatus


@dataclass(frozen=True)
class Evolution:
    """All candidates in order of discovery (the seed, the empty template, first) and the dev instances' ids.

    ``templates[i].scores[j]`` is candidate i's score on ``dev_ids[j]``. ``winners`` are the completions that the
    kept templates' scores come from.
    """

    templates: list[Template]
    dev_ids: list[str]
    cost: SearchCost
    winners: list[Completion] = field(default_factory=list)

    @property
    def kept(self) -> list[Template]:
        """The template set Z."""
        return [template for template in self.templates if template.kept]


class HardSplit(NamedTuple):
    """The hard set in disjoint parts: to reflect on, to score on, and to score the template set on before its use."""

    train: list[Problem]
    dev: list[Problem]
    fresh: list[Problem]


def split_hard(hard: Sequence[Problem], dev_size: int, rng: random.Random, fresh_size: int = 0) -> HardSplit:
    """Shuffle and split: ``fresh_size`` fresh problems, and of the others ``dev_size`` dev instances, half and half
    when there are fewer than 1.5 times as many (official code: 300 and 450)."""
    shuffled = rng.sample(list(hard), len(hard))
    rest, fresh = shuffled[: len(hard) - fresh_size], shuffled[len(hard) - fresh_size :]
    dev = dev_size if len(rest) >= 1.5 * dev_size else len(rest) // 2
    return HardSplit(rest[dev:], rest[:dev], fresh)


def evolve_templates(
    hard: Sequence[Problem],
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    pool: Sequence[str],
    config: EvolveConfig,
    sampling: Sampling,
    *,
    seed: int,
    archive: Sequence[str] = (),
    style: PromptStyle = "plain",
    model: LanguageModel | None = None,
    demonstrations: DemonstrationPool | None = None,
    on_calls: Callable[[int, int], None] = lambda done, budget: None,
) -> Evolution:
    """Search templates for the hard problems, starting from the empty one.

    Args:
        pool: phrases for the offline reflector.
        style: what stands around a question.
        model: the language model of the reflectors ``self`` and ``teacher``.
        archive: templates of earlier searches, scored again before anything new is proposed.
        demonstrations: the pool of the reflector ``demonstrations``; what the search solves joins it.
        on_calls: is called with the metric calls done and the budget after every gepa step.
    """
    train, dev, fresh = split_hard(hard, config.dev_size, random.Random(derive_seed(seed, "split")), config.fresh_size)
    race = Race(dev) if config.racing else None
    adapter = TemplateAdapter(
        engine,
        verifier,
        sampling,
        samples=config.samples_per_score,
        seed=derive_seed(seed, "scores"),
        style=style,
        race=race,
        tau=config.transfer_tau,
        learn=demonstrations.learn if demonstrations else None,
    )
    progress = _Progress(adapter, dev, config.max_metric_calls, on_calls)
    rng = random.Random(derive_seed(seed, "reflector"))
    reflector = make_reflector(config, pool, hard, model, rng, archive, demonstrations=demonstrations)
    result: gepa.GEPAResult[str, int] = gepa.optimize(
        seed_candidate={COMPONENT: ""},
        trainset=train,
        valset=dev,
        adapter=adapter,  # type: ignore[arg-type]
        reflection_strategy=reflector,
        reflection_minibatch_size=min(config.minibatch, len(train)),
        sampling_strategy=DistinctParentSampling(
            config.parents, random.Random(derive_seed(seed, "parents")), first=len(archive)
        ),
        # not max_metric_calls: gepa would count the instances a race left out
        stop_callbacks=lambda state: progress.is_spent(state) or _broken(reflector) is not None or _alone(reflector),
        cache_evaluation=False,  # gepa 0.1.4's cache does not tell train from dev instances
        track_best_outputs=False,
        callbacks=[progress],  # type: ignore[list-item]
        logger=_Silent(),
        seed=derive_seed(seed, "gepa") % 2**32,
    )
    if (error := _broken(reflector)) is not None:
        raise error
    templates = scored_on_fresh(_templates(result, progress, dev, config), fresh, adapter)
    return Evolution(
        templates=templates,
        dev_ids=[problem.id for problem in dev],
        winners=[
            completion
            for template in templates
            if template.kept
            for problem in dev
            for completion in adapter.latest[without_own(template.text, problem), problem.id]
        ],
        cost=replace(
            spent := reflection_cost(reflector, config),
            metric_calls=adapter.metric_calls,
            completions=adapter.completions,
            scored_tokens=adapter.scored_tokens,
            tokens=adapter.tokens + spent.tokens,
            prompt_tokens=adapter.prompt_tokens + spent.prompt_tokens,
            steps=progress.steps,
            raced_out=race.dropped if race else 0,
            verifier_timeouts=adapter.statuses[VerdictStatus.TIMEOUT],
            verifier_errors=adapter.statuses[VerdictStatus.ERROR],
        ),
    )


def _templates(
    result: gepa.GEPAResult[str, int], progress: _Progress, dev: Sequence[Problem], config: EvolveConfig
) -> list[Template]:
    """The candidates with their dev scores, the greedy cover kept. Whether a template solves a dev instance is a
    question of its rescue rate there; transfer decides whom gepa prefers and how often a template is drawn."""
    templates = []
    for index, (candidate, parents) in enumerate(zip(result.candidates, result.parents, strict=True)):
        scores = tuple(result.val_subscores[index][instance] for instance in range(len(dev)))
        template = Template(
            index,
            candidate[COMPONENT],
            tuple(parent for parent in parents if parent is not None),
            scores,
            kept=False,
            found_at=progress.found_at[index],
        )
        if config.transfer_tau is not None:
            rescues = progress.rescues[index]
            ratios = [ratio for rescue in rescues for ratio in rescue.log_ratios]
            template = replace(
                template,
                scores=tuple(rescue.rate for rescue in rescues),
                log_ratio=fmean(ratios) if ratios else None,
                transfer=template.mean_score,
                weight=template.mean_score,
            )
        templates.append(template)
    kept = set(greedy_cover([[score >= config.solved_at for score in template.scores] for template in templates]))
    return [replace(template, kept=template.index in kept) for template in templates]


def scored_on_fresh(
    templates: Sequence[Template], fresh: Sequence[Problem], adapter: TemplateAdapter
) -> list[Template]:
    """Score the kept templates on problems that had no part in finding or choosing them. Dev scores are those of
    winners, so they are too high; the fresh ones become the drawing weights. A kept template whose fresh rate is 0 is
    kept no longer when another's is not. Without fresh problems nothing changes."""
    kept = [template for template in templates if template.kept]
    if not fresh or not kept:
        return list(templates)
    results = adapter.batch_evaluate([({COMPONENT: template.text}, list(fresh)) for template in kept])
    rescored = {}
    for template, result in zip(kept, results, strict=True):
        seen = [(without_own(template.text, problem), problem.id) for problem in fresh]
        rate = fmean(adapter.rescues[place].rate for place in seen)
        rescored[template.index] = replace(template, fresh=rate, weight=fmean(result.scores))
    some = any(template.fresh for template in rescored.values())
    return [
        replace(template, kept=template.kept and not (some and template.fresh == 0))
        for template in (rescored.get(template.index, template) for template in templates)
    ]


def _broken(reflector: Reflector) -> Exception | None:
    return reflector.error if isinstance(reflector, ModelReflector) else None


def _alone(reflector: Reflector) -> bool:
    """Return whether the reflecting endpoint is down: further metric calls could find nothing new."""
    return isinstance(reflector, ModelReflector) and reflector.cost.failed[ENDPOINT_DOWN] > 0


class _Progress:
    """gepa callback and stopper: counts steps, records the metric calls and dev rescues at each template, ends at the
    budget."""

    def __init__(
        self, adapter: TemplateAdapter, dev: Sequence[Problem], budget: int, on_calls: Callable[[int, int], None]
    ) -> None:
        self.adapter = adapter
        self.dev = dev
        self.budget = budget
        self.on_calls = on_calls
        self.steps = 0
        self.found_at: dict[int, int] = {}
        self.rescues: dict[int, list[Rescue]] = {}
        """Of each candidate, in dev order; an instance that a race left out has none."""

    def on_valset_evaluated(self, event: dict) -> None:
        index, text = event["candidate_idx"], event["candidate"][COMPONENT]
        self.found_at[index] = self.adapter.metric_calls
        self.rescues[index] = [self.adapter.rescues.get((without_own(text, p), p.id), NO_RESCUE) for p in self.dev]

    def on_iteration_end(self, event: dict) -> None:
        self.steps += 1
        self.on_calls(self.adapter.metric_calls, self.budget)

    def is_spent(self, gepa_state: GEPAState) -> bool:
        return self.adapter.metric_calls >= self.budget


class _Silent:
    """Silences gepa, which prints every step; the result holds what matters."""

    def log(self, message: str) -> None:
        pass
