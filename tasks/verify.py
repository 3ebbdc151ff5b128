"""verify: a typed verdict for every bare completion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from p2o_core.schemas import read_problems, read_rows, write_rows
from p2o_core.types import AnswerVerifier, Completion, Gold, Judged, Problem
from tasks.running.stage import Artifact, Stage, StageIO


def judge(verifier: AnswerVerifier, completions: Sequence[Completion], golds: Mapping[str, Gold]) -> list[Judged]:
    """Verify completions against the gold answers of their problems."""
    verdicts = verifier.verify([(c.text, golds[c.problem_id]) for c in completions])
    return [
        Judged(c.problem_id, c.sample, v.status, v.reward, v.extracted)
        for c, v in zip(completions, verdicts, strict=True)
    ]


def gold_answers(problems: Sequence[Problem]) -> dict[str, Gold]:
    """By problem id; a tuple where several answers are right."""
    return {problem.id: problem.gold for problem in problems}


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
