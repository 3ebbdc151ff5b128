"""init: iteration 0. The policy to start from (for LoRA with its seeded step-0 adapter), an optimiser before its first
step, no templates, nothing hard, nothing to show."""

from __future__ import annotations

from p2o_core.demonstrations import Demonstration
from p2o_core.schemas import write_record, write_rows
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Completion, HardSample, Judged, TemplateSearch
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Write the policy, a new optimiser's state, and empty: the template set, the hard set, templated rollouts, what
    came of them, and what templates may show, in the form every later iteration has them in."""
    from p2o_core.config import DistillConfig
    from p2o_core.optimizer import PolicyOptimizer
    from p2o_core.policy import Policy

    policy = Policy.create(io.inputs["base"], io.experiment.policy, seed=io.seed("adapter"))
    policy.save(io.outputs["policy"])
    PolicyOptimizer(policy, DistillConfig()).save(io.outputs["optimizer"])  # before a step its settings leave no trace
    write_record(io.outputs["templates"], TemplateSearch())
    write_rows(io.outputs["hard"], [], HardSample)
    write_rows(io.outputs["templated"], [], Completion)
    write_rows(io.outputs["templated_verdicts"], [], Judged)
    write_rows(io.outputs["transfer"], [], TemplatedOutcome)
    write_rows(io.outputs["demonstrations"], [], Demonstration)


STAGE = Stage(
    name="init",
    run=run,
    inputs={"base": Artifact("policy", "base")},
    outputs={
        "policy": "policy",
        "optimizer": "optimizer",
        "templates": "templates.json",
        "hard": "hard.parquet",
        "templated": "templated.parquet",
        "templated_verdicts": "templated_verdicts.parquet",
        "transfer": "transfer.parquet",
        "demonstrations": "demonstrations.parquet",
    },
    params=("seed", "threads", "policy"),
    where="zero",
    per_iteration=False,
)
