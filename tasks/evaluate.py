"""evaluate: the bare policy on the held-out problems. Iteration 0 is the policy before training."""

from __future__ import annotations

from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.evaluation import avg_at_k, pass_at_k
from p2o_core.schemas import read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Judged
from tasks.mine import rewards_by_problem
from tasks.stage import Artifact, Stage, StageIO
from tasks.verify import gold_answers, judge


def run(io: StageIO) -> None:
    """Write ``predictions.parquet``, ``judgements.parquet`` and ``metrics.json`` (avg@k and pass@k by difficulty)."""
    settings = io.experiment.evaluate
    problems = read_problems(io.inputs["heldout"])
    policy = io.runtime.policy(io.inputs["policy"], io.inputs["base"], io.experiment.policy)
    # one stream for all iterations: the policies are compared on the same draws
    stream = derive_seed(io.experiment.seed, "evaluate")
    engine = io.runtime.engine(policy, io.experiment.rollout.rows_per_batch)
    completions = engine.generate(
        [RolloutRequest(p.id, p.question, "", tuple(range(settings.samples)), stream) for p in problems],
        Sampling(settings.temperature, settings.max_new_tokens),
    )
    judged = judge(io.runtime.verifier(io.experiment.verify), completions, gold_answers(problems))
    write_rows(io.outputs["predictions"], completions, Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], judged, Judged)

    rewards = rewards_by_problem(judged)
    tiers = {
        tier: [p.id for p in problems if p.difficulty == tier] for tier in sorted({p.difficulty for p in problems})
    }
    by_tier = {tier: {id_: rewards[id_] for id_ in ids} for tier, ids in tiers.items()}
    write_json(
        io.outputs["metrics"],
        {
            "iteration": io.iteration,
            "accuracy": {tier: avg_at_k(group) for tier, group in by_tier.items()},
            "pass_at": {
                str(k): {tier: pass_at_k(group, k) for tier, group in by_tier.items()} for k in settings.pass_k
            },
            "mean_tokens": sum(len(c.token_ids) for c in completions) / len(completions),
            "truncated": sum(c.truncated for c in completions) / len(completions),
        },
    )


STAGE = Stage(
    name="evaluate",
    run=run,
    inputs={
        "heldout": Artifact("heldout.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "current"),
    },
    outputs={"predictions": "predictions.parquet", "judgements": "judgements.parquet", "metrics": "metrics.json"},
    params=("seed", "threads", "policy", "rollout.rows_per_batch", "verify.timeout_s", "evaluate"),
)
