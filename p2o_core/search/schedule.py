"""The search of one iteration: whether it is due, and GEPA's result, what was reflected online, or a random draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from p2o_core.config import DemonstrationReflectorConfig, EvolveConfig, PhraseReflectorConfig, RolloutConfig
from p2o_core.demonstrations import DemonstrationPool
from p2o_core.engines.base import RolloutEngine, Sampling
from p2o_core.search.posterior import Trial, with_evidence
from p2o_core.types import AnswerVerifier, Completion, Problem, SearchCost, Template, TemplateSearch

if TYPE_CHECKING:
    from p2o_core.engines.language_models import LanguageModel


def is_due(previous: TemplateSearch, config: EvolveConfig, iteration: int) -> bool:
    """``config.every`` iterations after the last search; the first one in iteration ``config.first``."""
    if previous.searched_at:
        return iteration - previous.searched_at >= config.every
    return iteration >= config.first


def search_templates(
    hard: Sequence[Problem],
    previous: TemplateSearch,
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    phrases: Sequence[str],
    config: EvolveConfig,
    rollout: RolloutConfig,
    *,
    iteration: int,
    seed: Callable[[str], int],
    bare: Sequence[Trial] = (),
    templated: Sequence[Trial] = (),
    strangers: Sequence[Mapping[str, str]] = (),
    model: Callable[[], LanguageModel | None] = lambda: None,
    demonstrations: DemonstrationPool | None = None,
    on_calls: Callable[[int, int], None] = lambda done, budget: None,
) -> tuple[TemplateSearch, list[Completion]]:
    """The iteration's templates, and the completions that a search sampled under the kept ones.

    Args:
        hard: the hard problems; fewer than ``config.min_hard`` end without templates.
        previous: the last iteration's result. It stays when no search is due.
        phrases: the pool of the offline reflector and of the random draw.
        rollout: how the policy is sampled.
        seed: gives the seed of what is named: ``search`` or ``draw``.
        bare: this iteration's bare rollouts, for a search online.
        templated: the last one's under templates, likewise.
        strangers: what another policy answered, for the control ``reads: stranger``.
        model: gives who reflects, None for the phrases; called when a search begins.
        demonstrations: the pool of the reflector ``demonstrations``, with this iteration's; a search adds to it.
        on_calls: is called with the metric calls done and the budget after every gepa step.
    """
    if not config.enabled:
        return TemplateSearch("off"), []
    if config.search == "online":
        asked = (hard, previous, phrases, config, bare, templated, strangers, iteration, seed, model, demonstrations)
        return _online(*asked), []
    if not is_due(previous, config, iteration):
        return replace(previous, status="carried", cost=SearchCost()), []
    if status := _lacking(hard, config, demonstrations):
        return TemplateSearch(status), []
    if config.search == "random":
        drawn = draw_templates(phrases, config, seed("draw"), demonstrations)
        return TemplateSearch("drawn", iteration, templates=drawn), []
    from p2o_core.search.evolve import evolve_templates  # gepa, torch: not for iterations without a search

    evolution = evolve_templates(
        hard,
        engine,
        verifier,
        phrases,
        config,
        Sampling(rollout.temperature, rollout.max_new_tokens),
        seed=seed("search"),
        style=rollout.prompt,
        model=model(),
        demonstrations=demonstrations,
        archive=[t.text for t in previous.kept if t.text] if config.archive else (),
        on_calls=on_calls,
    )
    found = TemplateSearch("searched", iteration, evolution.dev_ids, evolution.templates, evolution.cost)
    return found, evolution.winners


def _lacking(
    hard: Sequence[Problem], config: EvolveConfig, demonstrations: DemonstrationPool | None
) -> Literal["too_few_hard", "no_demonstrations"] | None:
    """What a search that is due lacks: problems, or anything to show."""
    if len(hard) < config.min_hard:
        return "too_few_hard"
    shows = isinstance(config.reflector, DemonstrationReflectorConfig)
    return "no_demonstrations" if shows and not (demonstrations and demonstrations.rows) else None


def _online(
    hard: Sequence[Problem],
    previous: TemplateSearch,
    phrases: Sequence[str],
    config: EvolveConfig,
    bare: Sequence[Trial],
    templated: Sequence[Trial],
    strangers: Sequence[Mapping[str, str]],
    iteration: int,
    seed: Callable[[str], int],
    model: Callable[[], LanguageModel | None],
    demonstrations: DemonstrationPool | None,
) -> TemplateSearch:
    """The archive with what the last iteration's templated rollouts say; when a search is due, with new templates."""
    known = with_evidence(previous.templates, templated, config.online.discount, config.transfer_tau)
    if not is_due(previous, config, iteration):
        return TemplateSearch("carried", previous.searched_at, templates=known)
    if status := _lacking(hard, config, demonstrations):
        return TemplateSearch(status, previous.searched_at, templates=known)
    from p2o_core.search.online import reflect_on_failures, taken  # gepa, as below
    from p2o_core.search.reflectors import make_reflector, reflection_cost

    rng = random.Random(seed("search"))
    news = sorted(taken(known, config.online))
    reflector = make_reflector(config, phrases, hard, model(), rng, known=news, demonstrations=demonstrations)
    asked = {problem.id for problem in hard}
    templates = reflect_on_failures(
        known,
        [trial for trial in bare if trial.problem.id in asked],
        templated,
        reflector,
        config,
        iteration=iteration,
        rng=rng,
        strangers=strangers,
    )
    return TemplateSearch("reflected", iteration, templates=templates, cost=reflection_cost(reflector, config))


def draw_templates(
    phrases: Sequence[str], config: EvolveConfig, seed: int, demonstrations: DemonstrationPool | None = None
) -> list[Template]:
    """The control that GEPA has to beat: as many random templates as a search has parents, all kept, none scored."""
    from p2o_core.search.demonstrations import DemonstrationReflector  # gepa, as above
    from p2o_core.search.reflectors import PhraseReflector

    rng = random.Random(seed)
    reflector: PhraseReflector | DemonstrationReflector
    if isinstance(config.reflector, DemonstrationReflectorConfig) and demonstrations is not None:
        reflector = DemonstrationReflector(demonstrations, rng=rng)
    else:
        assert isinstance(config.reflector, PhraseReflectorConfig), "EvolveConfig checks it"
        reflector = PhraseReflector(phrases, **config.reflector.options(), rng=rng)
    texts = dict.fromkeys(reflector.random_template() for _ in range(config.parents))
    return [Template(index, text, (), (), kept=True) for index, text in enumerate(texts)]
