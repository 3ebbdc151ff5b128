"""One search: split the hard set, let gepa evolve templates, keep the greedy cover."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import gepa

from p2o_core.config import EvolveConfig
from p2o_core.cover import greedy_cover
from p2o_core.engines.base import RolloutEngine, Sampling
from p2o_core.search.adapter import COMPONENT, TemplateAdapter
from p2o_core.search.reflectors import PhraseReflector
from p2o_core.search.sampling import DistinctParentSampling
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem, Template, VerdictStatus
from p2o_core.verify import Verifier


@dataclass(frozen=True)
class SearchCost:
    """What a search took: scores, completions and tokens generated (rejected ones included), gepa steps."""

    metric_calls: int = 0
    completions: int = 0
    tokens: int = 0
    steps: int = 0
    verifier_timeouts: int = 0
    verifier_errors: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Evolution:
    """All candidates in order of discovery (the seed, the empty template, first) and the dev instances' ids.

    ``templates[i].scores[j]`` is candidate i's score on ``dev_ids[j]``.
    """

    templates: list[Template]
    dev_ids: list[str]
    cost: SearchCost

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
    verifier: Verifier,
    pool: Sequence[str],
    config: EvolveConfig,
    sampling: Sampling,
    *,
    seed: int,
    on_calls: Callable[[int, int], None] = lambda done, budget: None,
) -> Evolution:
    """Search templates for the hard problems, starting from the empty one.

    Args:
        pool: phrases for the offline reflector.
        on_calls: told the metric calls done and the budget after every gepa step.
    """
    train, dev = split_hard(hard, config.dev_size, random.Random(derive_seed(seed, "split")))
    adapter = TemplateAdapter(
        engine, verifier, sampling, samples=config.samples_per_score, seed=derive_seed(seed, "scores")
    )
    progress = _Progress(config.max_metric_calls, on_calls)
    result: gepa.GEPAResult[str, int] = gepa.optimize(
        seed_candidate={COMPONENT: ""},
        trainset=train,
        valset=dev,
        adapter=adapter,  # type: ignore[arg-type]
        reflection_strategy=PhraseReflector(
            pool, max_phrases=config.reflector.max_phrases, rng=random.Random(derive_seed(seed, "reflector"))
        ),
        reflection_minibatch_size=min(config.minibatch, len(train)),
        sampling_strategy=DistinctParentSampling(config.parents, random.Random(derive_seed(seed, "parents"))),
        max_metric_calls=config.max_metric_calls,
        cache_evaluation=False,  # gepa's cache does not tell train from dev instances
        track_best_outputs=False,
        callbacks=[progress],  # type: ignore[list-item]
        logger=_Silent(),
        seed=derive_seed(seed, "gepa") % 2**32,
    )
    scores = [tuple(subscores[index] for index in range(len(dev))) for subscores in result.val_subscores]
    kept = set(greedy_cover([[score >= config.solved_at for score in row] for row in scores]))
    return Evolution(
        templates=[
            Template(
                index, candidate[COMPONENT], tuple(p for p in parents if p is not None), scores[index], index in kept
            )
            for index, (candidate, parents) in enumerate(zip(result.candidates, result.parents, strict=True))
        ],
        dev_ids=[problem.id for problem in dev],
        cost=SearchCost(
            metric_calls=result.total_metric_calls or 0,
            completions=adapter.completions,
            tokens=adapter.tokens,
            steps=progress.steps,
            verifier_timeouts=adapter.statuses[VerdictStatus.TIMEOUT],
            verifier_errors=adapter.statuses[VerdictStatus.ERROR],
        ),
    )


class _Progress:
    """gepa callback: counts steps and passes the budget on."""

    def __init__(self, budget: int, on_calls: Callable[[int, int], None]) -> None:
        self.budget = budget
        self.on_calls = on_calls
        self.steps = 0

    def on_iteration_end(self, event: dict) -> None:
        self.steps += 1
        self.on_calls(event["state"].total_num_evals, self.budget)


class _Silent:
    """gepa prints every step otherwise; what matters is in the result."""

    def log(self, message: str) -> None:
        pass
