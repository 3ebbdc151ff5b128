"""mine: the hard set, and how much signal the groups carry."""

from __future__ import annotations

from collections.abc import Sequence

from p2o_core.mining import mine_hard, signal_statistics
from p2o_core.schemas import read_problems, read_rows, write_json, write_rows
from p2o_core.types import HardSample, Judged
from tasks.running.stage import Artifact, Stage, StageIO


def rewards_by_problem(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """Problem id to the rewards of its completions, in order of first appearance."""
    rewards: dict[str, list[float]] = {}
    for row in judged:
        rewards.setdefault(row.problem_id, []).append(row.reward)
    return rewards


def run(io: StageIO) -> None:
    """Write ``hard.parquet`` (this iteration's hard problems and those of the window before, which were not rolled
    out since) and ``mining.json`` (shares over this iteration's groups, all and by difficulty)."""
    settings = io.experiment.mine
    rewards = rewards_by_problem(read_rows(io.inputs["verdicts"], Judged))
    difficulty = {problem.id: problem.difficulty for problem in read_problems(io.inputs["train"])}
    hard = [
        HardSample(id_, sum(rewards[id_]) / len(rewards[id_]), near=any(rewards[id_]), mined_at=io.iteration)
        for id_ in mine_hard(rewards, near_hard=settings.near_hard)
    ]
    remembered = [
        sample
        for sample in read_rows(io.inputs["previous"], HardSample)
        if sample.problem_id not in rewards and sample.mined_at > io.iteration - settings.window
    ]
    write_rows(io.outputs["hard"], [*remembered, *hard], HardSample)
    tiers = sorted({difficulty[id_] for id_ in rewards})
    write_json(
        io.outputs["mining"],
        {
            **signal_statistics(rewards),
            "hard": len(hard),
            "near_hard": sum(sample.near for sample in hard),
            "remembered": len(remembered),
            "by_difficulty": {
                tier: signal_statistics({id_: r for id_, r in rewards.items() if difficulty[id_] == tier})
                for tier in tiers
            },
        },
    )
    io.counts["hard"] = len(hard)


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
