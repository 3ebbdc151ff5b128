"""verify: a typed verdict for every bare completion."""

from __future__ import annotations

from collections import Counter

from p2o_core.rollout import gold_answers, judge
from p2o_core.schemas import read_problems, read_rows, write_rows
from p2o_core.types import Completion, Judged
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Write ``verdicts.parquet``, one row a completion, in the rollouts' order."""
    completions = read_rows(io.inputs["rollouts"], Completion)
    golds = gold_answers(read_problems(io.inputs["train"]))
    judged = judge(io.verifier(), completions, golds)
    write_rows(io.outputs["verdicts"], judged, Judged)
    io.counts.update(sorted(Counter(str(j.status) for j in judged).items()))


STAGE = Stage(
    name="verify",
    run=run,
    inputs={"train": Artifact("train.parquet", "base"), "rollouts": Artifact("rollouts.parquet", "current")},
    outputs={"verdicts": "verdicts.parquet"},
    params=("verify.timeout_s",),
)
