"""One search: split the hard set, let gepa evolve templates, keep the greedy cover."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import gepa
from gepa.core.state import GEPAState

from p2o_core.config import EvolveConfig, PromptStyle
from p2o_core.cover import greedy_cover
from p2o_core.engines.base import RolloutEngine, Sampling
from p2o_core.engines.language_models import ENDPOINT_DOWN, LanguageModel
from p2o_core.search.adapter import COMPONENT, TemplateAdapter
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


def split_hard(hard: Sequence[Problem], dev_size: int, rng: random.Random) -> tuple[list[Problem], list[Problem]]:
    """(reflection train set, dev set): shuffled; ``dev_size`` dev instances, half and half when there are fewer
    than 1.5 times as many hard samples (official code: 300 and 450)."""
    shuffled = rng.sample(list(hard), len(hard))
    dev = dev_size if len(hard) >= 1.5 * dev_size else len(hard) // 2
    return shuffled[dev:], shuffled[:dev]


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
    on_calls: Callable[[int, int], None] = lambda done, budget: None,
) -> Evolution:
    """Search templates for the hard problems, starting from the empty one.

    Args:
        pool: phrases for the offline reflector.
        style: what stands around a question.
        model: the language model of the reflectors ``self`` and ``teacher``.
        archive: templates of earlier searches, scored again before anything new is proposed.
        on_calls: is called with the metric calls done and the budget after every gepa step.
    """
    train, dev = split_hard(hard, config.dev_size, random.Random(derive_seed(seed, "split")))
    race = Race(dev) if config.racing else None
    adapter = TemplateAdapter(
        engine,
        verifier,
        sampling,
        samples=config.samples_per_score,
        seed=derive_seed(seed, "scores"),
        style=style,
        race=race,
    )
    progress = _Progress(adapter, config.max_metric_calls, on_calls)
    reflector = make_reflector(config, pool, hard, model, random.Random(derive_seed(seed, "reflector")), archive)
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
    scores = [tuple(subscores[index] for index in range(len(dev))) for subscores in result.val_subscores]
    kept = set(greedy_cover([[score >= config.solved_at for score in row] for row in scores]))
    templates = [
        Template(
            index,
            candidate[COMPONENT],
            tuple(p for p in parents if p is not None),
            scores[index],
            kept=index in kept,
            found_at=progress.found_at[index],
        )
        for index, (candidate, parents) in enumerate(zip(result.candidates, result.parents, strict=True))
    ]
    return Evolution(
        templates=templates,
        dev_ids=[problem.id for problem in dev],
        winners=[
            completion
            for template in templates
            if template.kept
            for problem in dev
            for completion in adapter.latest[template.text, problem.id]
        ],
        cost=replace(
            spent := reflection_cost(reflector, config),
            metric_calls=adapter.metric_calls,
            completions=adapter.completions,
            tokens=adapter.tokens + spent.tokens,
            prompt_tokens=adapter.prompt_tokens + spent.prompt_tokens,
            steps=progress.steps,
            raced_out=race.dropped if race else 0,
            verifier_timeouts=adapter.statuses[VerdictStatus.TIMEOUT],
            verifier_errors=adapter.statuses[VerdictStatus.ERROR],
        ),
    )


def _broken(reflector: Reflector) -> Exception | None:
    return reflector.error if isinstance(reflector, ModelReflector) else None


def _alone(reflector: Reflector) -> bool:
    """Return whether the reflecting endpoint is down: further metric calls could find nothing new."""
    return isinstance(reflector, ModelReflector) and reflector.cost.failed[ENDPOINT_DOWN] > 0


class _Progress:
    """gepa callback and stopper: counts steps, records the metric calls at each template, ends at the budget."""

    def __init__(self, adapter: TemplateAdapter, budget: int, on_calls: Callable[[int, int], None]) -> None:
        self.adapter = adapter
        self.budget = budget
        self.on_calls = on_calls
        self.steps = 0
        self.found_at: dict[int, int] = {}

    def on_valset_evaluated(self, event: dict) -> None:
        self.found_at[event["candidate_idx"]] = self.adapter.metric_calls

    def on_iteration_end(self, event: dict) -> None:
        self.steps += 1
        self.on_calls(self.adapter.metric_calls, self.budget)

    def is_spent(self, gepa_state: GEPAState) -> bool:
        return self.adapter.metric_calls >= self.budget


class _Silent:
    """Silences gepa, which prints every step; the result holds what matters."""

    def log(self, message: str) -> None:
        pass
