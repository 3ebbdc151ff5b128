"""rollout: n bare completions of each of the iteration's problems, from the policy the last iteration left; with
``rollout.resample_rounds`` of further ones, until enough problems have a signal."""

from __future__ import annotations

from p2o_core.rollout import sample_iteration
from p2o_core.schemas import read_problems, write_rows
from p2o_core.types import Completion
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Sample and write ``rollouts.parquet``: token ids, log-probs and text of every completion."""
    config = io.experiment.rollout
    train = read_problems(io.inputs["train"])
    done, total = 0, config.problems * config.samples

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        io.progress(done, max(done, total))

    # further problems need verdicts here; the stage verify judges all completions again, for its own file
    engine, seed = io.engine(advance), io.experiment.seed
    completions = sample_iteration(engine, io.verifier, train, config, iteration=io.iteration, seed=seed)
    io.counts["problems"] = len({completion.problem_id for completion in completions})
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
    params=("seed", "threads", "policy", "engine", "rollout", "verify.timeout_s"),
)
