"""S6: a search of N metric calls against gepa's own loop: one parent and one proposal a step, and an adapter that asks
the same engine and the same verifier for one problem at a time. Proposals come from the same offline reflector."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import Meter
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

NEW_TOKENS = 44


def _world(settings: Settings, verifier: Any) -> tuple[Any, list[Any], list[str], Any]:
    """Engine, hard problems, phrases and configuration."""
    import torch

    from benchmarks.inputs import micro_base
    from microworld.problems import draw_split
    from microworld.sentences import phrase_pool
    from p2o_core.config import EvolveConfig, FullPolicy
    from p2o_core.engines.embedded import EmbeddedEngine
    from p2o_core.policy import Policy

    torch.set_num_threads(int(settings.get("threads", 2)))
    policy = Policy.load(micro_base(), micro_base(), FullPolicy())
    hard = list(draw_split(random.Random(1), "train", [("hard", 4, settings["hard"])], taken=set()))
    verifier.verify([("\\boxed{1}", "1")])  # its workers start
    config = EvolveConfig(
        min_hard=4,
        dev_size=settings["dev"],
        samples_per_score=settings["samples"],
        solved_at=0.5,
        max_metric_calls=settings["calls"],
    )
    return EmbeddedEngine(policy, rows_per_batch=512), hard, phrase_pool(seed=0), config


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """:func:`p2o_core.search.evolve.evolve_templates`."""
    from p2o_core.engines.base import Sampling
    from p2o_core.search.evolve import evolve_templates
    from p2o_core.verify import Verifier

    with Verifier(workers=2, timeout_s=5.0) as verifier:
        engine, hard, phrases, config = _world(settings, verifier)
        meter.beside = descendants
        with meter:
            found = evolve_templates(
                hard, engine, verifier, phrases, config, Sampling(1.0, NEW_TOKENS), seed=settings["repetition"]
            )
    scores = [template.mean_score for template in found.templates]
    return _numbers(found.cost.metric_calls, found.cost.tokens, scores, meter)


def sequential(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """``gepa.optimize`` with its defaults."""
    import gepa

    from p2o_core.engines.base import Sampling
    from p2o_core.search.adapter import COMPONENT, TemplateAdapter
    from p2o_core.search.evolve import split_hard
    from p2o_core.search.reflectors import make_reflector
    from p2o_core.seeding import derive_seed
    from p2o_core.verify import Verifier

    class Sequential:
        """What an adapter looks like in gepa's documents: problem by problem."""

        propose_new_texts = None

        def __init__(self, inner: TemplateAdapter) -> None:
            self.inner = inner

        def evaluate(self, batch: list[Any], candidate: dict[str, str], capture_traces: bool = False) -> Any:
            from gepa.core.adapter import EvaluationBatch

            each = [self.inner.evaluate([problem], candidate, capture_traces=True) for problem in batch]
            return EvaluationBatch(
                outputs=[e.outputs[0] for e in each],
                scores=[e.scores[0] for e in each],
                trajectories=[t for e in each for t in e.trajectories or ()] if capture_traces else None,
            )

        def make_reflective_dataset(self, candidate: Any, batch: Any, components: Any) -> Any:
            return self.inner.make_reflective_dataset(candidate, batch, components)

    with Verifier(workers=2, timeout_s=5.0) as verifier:
        engine, hard, phrases, config = _world(settings, verifier)
        seed = settings["repetition"]
        train, dev, _ = split_hard(hard, config.dev_size, random.Random(derive_seed(seed, "split")))
        inner = TemplateAdapter(
            engine,
            verifier,
            Sampling(1.0, NEW_TOKENS),
            samples=config.samples_per_score,
            seed=derive_seed(seed, "scores"),
        )
        reflector = make_reflector(config, phrases, hard, None, random.Random(derive_seed(seed, "reflector")))
        meter.beside = descendants
        with meter:
            result: Any = gepa.optimize(
                seed_candidate={COMPONENT: ""},
                trainset=train,
                valset=dev,
                adapter=Sequential(inner),  # type: ignore[arg-type]
                reflection_strategy=reflector,
                reflection_minibatch_size=config.minibatch,
                max_metric_calls=config.max_metric_calls,
                logger=_Silent(),
                seed=derive_seed(seed, "gepa") % 2**32,
            )
        gap = _batching_gap(engine, dev)
    return {
        **_numbers(inner.metric_calls, inner.tokens, list(result.val_aggregate_scores), meter),
        "single_equals_batched": gap,
    }


class _Silent:
    def log(self, message: str) -> None:
        pass


def descendants() -> list[int]:
    """Processes that the verifier has running now."""
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True)]


def _batching_gap(engine: Any, problems: Sequence[Any]) -> float:
    """Share of completions that are the same whether asked for alone or together."""
    from p2o_core.engines.base import RolloutRequest, Sampling

    requests = [RolloutRequest(p.id, p.question, "", (0, 1), 3) for p in problems]
    together = engine.generate(requests, Sampling(1.0, NEW_TOKENS))
    alone = [c for request in requests for c in engine.generate([request], Sampling(1.0, NEW_TOKENS))]
    return sum(a.token_ids == b.token_ids for a, b in zip(together, alone, strict=True)) / len(alone)


def _numbers(calls: int, tokens: int, scores: Sequence[float], meter: Meter) -> dict[str, Any]:
    return {
        "metric_calls": calls,
        "tokens": tokens,
        "seed_score": scores[0],
        "best_score": max(scores),
        "candidates": len(scores),
        "wall_s_a_call": meter.wall_s / calls,
        "cpu_s_a_call": meter.cpu_s / calls,
    }


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """The same completions alone and together, budgets within a dev set and a step, and the same score of the seed."""
    same = min(run.numbers["single_equals_batched"] for run in case.sides[THEIRS])
    if same < 0.98:
        raise Disagreement(f"only {same:.1%} of the completions are the same alone and together")
    scores = {side: case.median(side, "seed_score") for side in (OURS, THEIRS)}
    best = {side: case.median(side, "best_score") for side in (OURS, THEIRS)}
    if abs(scores[OURS] - scores[THEIRS]) > 0.25:
        raise Disagreement(f"the empty template scores {scores}")
    return {"single_equals_batched": same, "seed_scores": scores, "best_scores": best}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    (case,) = cases.values()
    ratio, spread = pooled(case.ratios("wall_s_a_call"))
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=ratio >= 5.0,
        limit_share=None,
        bound="the engine's decoding and the verifier's round trips, one a step here and one a problem there",
        more={"ratio_of_processor_seconds": pooled(case.ratios("cpu_s_a_call"))[0]},
    )


ROWS = {
    "S6": Row(
        name="S6",
        title="a search to N metric calls against gepa's loop with a sequential adapter",
        goal="≥ 5× (wall clock a metric call)",
        cases={"micro-world": {"hard": 32, "dev": 16, "samples": 4, "calls": 400}},
        small={"hard": 8, "dev": 4, "samples": 2, "calls": 40},
        sides={OURS: ours, THEIRS: sequential},
        agree=agree,
        judge=_judge,
    )
}
