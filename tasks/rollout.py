"""rollout: n bare completions of each of the iteration's problems, from the policy the last iteration left."""

from __future__ import annotations

from p2o_core.rollout import iteration_problems, sample_bare
from p2o_core.schemas import read_problems, write_rows
from p2o_core.types import Completion
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Sample and write ``rollouts.parquet``: token ids, log-probs and text of every completion."""
    config = io.experiment.rollout
    train = read_problems(io.inputs["train"])
    problems = iteration_problems(train, io.iteration, config.problems, io.experiment.seed)
    done, total = 0, config.problems * config.samples

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        io.progress(done, total)

    completions = sample_bare(io.engine(advance), problems, config, io.seed("completions"))
    io.counts["problems"] = len(problems)
    io.counts["completions"] = write_rows(io.outputs["rollouts"], completions, Completion)
    io.counts["tokens"] = sum(len(c.token_ids) for c in completions)
    io.counts["prompt_tokens"] = sum(c.prompt_tokens for c in completions)
    io.counts["truncated"] = sum(c.truncated for c in completions)


STAGE = Stage(
    name="rollout",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "previous"),
    },
    outputs={"rollouts": "rollouts.parquet"},
    params=("seed", "threads", "policy", "engine", "rollout"),
)
