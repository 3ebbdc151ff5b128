"""evaluate: the bare policy on the held-out problems. Iteration 0 is the policy before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from p2o_core.config import EvaluateConfig
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.evaluation import avg_at_k, maj_at_k, pass_at_k
from p2o_core.schemas import read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier, Completion, Judged, Problem
from tasks.evolve import best_template
from tasks.mine import rewards_by_problem
from tasks.running.stage import Artifact, Stage, StageIO
from tasks.verify import gold_answers, judge

Value = TypeVar("Value")


def run(io: StageIO) -> None:
    """Write ``predictions.parquet``, ``judgements.parquet`` and ``metrics.json`` (avg@k, pass@k, maj@k and lengths by
    difficulty).

    What stands under ``best_template`` is measured with the best template of the last search in front; everything
    else is bare.
    """
    settings = io.experiment.evaluate
    if io.iteration % settings.every:
        _skip(io)
        return
    problems = read_problems(io.inputs["heldout"])
    engine, verifier = io.engine(), io.verifier()
    # one stream for all iterations: the policies are compared on the same draws
    stream = derive_seed(io.experiment.seed, "evaluate")
    measured = measure(engine, verifier, problems, settings, stream)
    write_rows(io.outputs["predictions"], measured.completions, Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], measured.judged, Judged)
    metrics = {"iteration": io.iteration, "status": "measured"} | measured.metrics
    best = best_template(io.inputs["templates"]) if settings.best_template else None
    if best is not None:
        metrics["best_template"] = measure(engine, verifier, problems, settings, stream, best.text).metrics["accuracy"]
    write_json(io.outputs["metrics"], metrics)


@dataclass(frozen=True)
class Measured:
    """k completions a problem, their verdicts, and what they come to by difficulty."""

    completions: list[Completion]
    judged: list[Judged]
    metrics: dict[str, Any]


def measure(
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    problems: Sequence[Problem],
    settings: EvaluateConfig,
    stream: int,
    template: str = "",
) -> Measured:
    """Answer every problem ``settings.samples`` times under ``template``: avg@k, pass@k, maj@k and lengths."""
    samples = tuple(range(settings.samples))
    completions = engine.generate(
        [RolloutRequest(p.id, p.question, template, samples, stream, settings.prompt) for p in problems],
        Sampling(settings.temperature, settings.max_new_tokens),
    )
    judged = judge(verifier, completions, gold_answers(problems))
    tiers, rewards = tier_ids(problems), rewards_by_problem(judged)
    read: dict[str, list[tuple[str, float]]] = {}
    for row in judged:
        read.setdefault(row.problem_id, []).append((row.extracted, row.reward))
    metrics = {
        "accuracy": {tier: avg_at_k(_of(rewards, ids)) for tier, ids in tiers.items()},
        "pass_at": {
            str(k): {tier: pass_at_k(_of(rewards, ids), k) for tier, ids in tiers.items()} for k in settings.pass_k
        },
        "maj_at": {tier: maj_at_k(_of(read, ids)) for tier, ids in tiers.items()},
        "lengths": {tier: _lengths(completions, set(ids)) for tier, ids in tiers.items()},
        "mean_tokens": sum(len(c.token_ids) for c in completions) / len(completions),
        "truncated": sum(c.truncated for c in completions) / len(completions),
    }
    return Measured(completions, judged, metrics)


def _skip(io: StageIO) -> None:
    """The iteration is not due for an evaluation: empty tables, and a status that says so."""
    write_rows(io.outputs["predictions"], [], Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], [], Judged)
    write_json(io.outputs["metrics"], {"iteration": io.iteration, "status": "not_due"})


def tier_ids(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Difficulty (a benchmark's name, where benchmarks are evaluated) to problem ids."""
    tiers: dict[str, list[str]] = {tier: [] for tier in sorted({p.difficulty for p in problems})}
    for problem in problems:
        tiers[problem.difficulty].append(problem.id)
    return tiers


def _of(values: Mapping[str, Value], ids: Sequence[str]) -> dict[str, Value]:
    return {id_: values[id_] for id_ in ids}


def _lengths(completions: Sequence[Completion], ids: set[str]) -> dict[str, float]:
    """Tokens a completion, mean and 95th percentile, and the share that was cut off."""
    lengths = sorted(len(c.token_ids) for c in completions if c.problem_id in ids)
    cut = sum(c.truncated for c in completions if c.problem_id in ids)
    return {
        "mean": sum(lengths) / len(lengths),
        "p95": float(lengths[int(0.95 * (len(lengths) - 1))]),
        "truncated": cut / len(lengths),
    }


STAGE = Stage(
    name="evaluate",
    run=run,
    inputs={
        "heldout": Artifact("heldout.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "current"),
        "templates": Artifact("templates.json", "current"),
    },
    outputs={"predictions": "predictions.parquet", "judgements": "judgements.parquet", "metrics": "metrics.json"},
    params=("seed", "threads", "policy", "engine", "verify.timeout_s", "evaluate"),
)
