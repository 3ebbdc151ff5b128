"""mine: the hard set, and how much signal the groups carry."""

from __future__ import annotations

from p2o_core.mining import mine, mining_report, rewards_by_problem
from p2o_core.schemas import read_problems, read_rows, write_record, write_rows
from p2o_core.types import HardSample, Judged
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Write ``hard.parquet`` (this iteration's hard problems and those of the window before, which were not rolled
    out since) and ``mining.json`` (shares over this iteration's groups, all and by difficulty)."""
    rewards = rewards_by_problem(read_rows(io.inputs["verdicts"], Judged))
    difficulty = {problem.id: problem.difficulty for problem in read_problems(io.inputs["train"])}
    hard = mine(rewards, read_rows(io.inputs["previous"], HardSample), io.experiment.mine, io.iteration)
    report = mining_report(rewards, hard, difficulty, io.iteration)
    write_rows(io.outputs["hard"], hard, HardSample)
    write_record(io.outputs["mining"], report)
    io.counts["hard"] = report.hard


STAGE = Stage(
    name="mine",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "previous": Artifact("hard.parquet", "previous"),
        "verdicts": Artifact("verdicts.parquet", "current"),
    },
    outputs={"hard": "hard.parquet", "mining": "mining.json"},
    params=("mine",),
)
