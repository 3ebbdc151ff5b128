"""evaluate: the bare policy on the held-out problems. Iteration 0 is the policy before training."""

from __future__ import annotations

from collections.abc import Sequence

from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.evaluation import avg_at_k, pass_at_k
from p2o_core.schemas import read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Judged, Problem
from tasks.evolve import best_template
from tasks.mine import rewards_by_problem
from tasks.stage import Artifact, Stage, StageIO
from tasks.verify import gold_answers, judge


def run(io: StageIO) -> None:
    """Write ``predictions.parquet``, ``judgements.parquet`` and ``metrics.json`` (avg@k and pass@k by difficulty).

    What stands under ``best_template`` is measured with the best template of the last search in front; everything
    else is bare.
    """
    settings = io.experiment.evaluate
    problems = read_problems(io.inputs["heldout"])
    completions, judged = _answer(io, problems, "")
    write_rows(io.outputs["predictions"], completions, Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], judged, Judged)
    metrics = {
        "iteration": io.iteration,
        "accuracy": {tier: avg_at_k(rewards) for tier, rewards in _by_tier(problems, judged).items()},
        "pass_at": {
            str(k): {tier: pass_at_k(rewards, k) for tier, rewards in _by_tier(problems, judged).items()}
            for k in settings.pass_k
        },
        "mean_tokens": sum(len(c.token_ids) for c in completions) / len(completions),
        "truncated": sum(c.truncated for c in completions) / len(completions),
    }
    best = best_template(io.inputs["templates"]) if settings.best_template else None
    if best is not None:
        _, judged = _answer(io, problems, best.text)
        metrics["best_template"] = {tier: avg_at_k(rewards) for tier, rewards in _by_tier(problems, judged).items()}
    write_json(io.outputs["metrics"], metrics)


def _answer(io: StageIO, problems: Sequence[Problem], template: str) -> tuple[list[Completion], list[Judged]]:
    """k completions a problem under ``template``, and their verdicts."""
    settings = io.experiment.evaluate
    # one stream for all iterations: the policies are compared on the same draws
    stream = derive_seed(io.experiment.seed, "evaluate")
    samples = tuple(range(settings.samples))
    completions = io.engine().generate(
        [RolloutRequest(p.id, p.question, template, samples, stream, settings.prompt) for p in problems],
        Sampling(settings.temperature, settings.max_new_tokens),
    )
    return completions, judge(io.runtime.verifier(io.experiment.verify), completions, gold_answers(problems))


def _by_tier(problems: Sequence[Problem], judged: Sequence[Judged]) -> dict[str, dict[str, list[float]]]:
    """Difficulty to problem id to rewards."""
    rewards = rewards_by_problem(judged)
    tiers: dict[str, dict[str, list[float]]] = {tier: {} for tier in sorted({p.difficulty for p in problems})}
    for problem in problems:
        tiers[problem.difficulty][problem.id] = rewards[problem.id]
    return tiers


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
