"""rollout: n bare completions of each of the iteration's problems, from the policy the last iteration left."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.schemas import read_problems, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Problem
from tasks.running.stage import Artifact, Stage, StageIO


def iteration_problems(problems: Sequence[Problem], iteration: int, count: int, seed: int) -> list[Problem]:
    """The iteration's slice of the train split: every problem once an epoch, in an order of the epoch's own."""
    if count > len(problems):
        raise ValueError(
            f"rollout.problems is {count}, the train split has {len(problems)}. Mend: lower it or add problems."
        )
    picked: dict[str, Problem] = {}
    place = (iteration - 1) * count
    while len(picked) < count:
        epoch, offset = divmod(place, len(problems))
        order = random.Random(derive_seed(seed, epoch, "order")).sample(range(len(problems)), len(problems))
        problem = problems[order[offset]]
        picked.setdefault(problem.id, problem)  # an iteration across two epochs may meet a problem twice
        place += 1
    return list(picked.values())


def run(io: StageIO) -> None:
    """Sample and write ``rollouts.parquet``: token ids, log-probs and text of every completion."""
    settings = io.experiment.rollout
    problems = iteration_problems(
        read_problems(io.inputs["train"]), io.iteration, settings.problems, io.experiment.seed
    )
    samples = tuple(range(settings.samples))
    done, total = 0, settings.problems * settings.samples

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        io.progress(done, total)

    completions = io.engine(advance).generate(
        [RolloutRequest(p.id, p.question, "", samples, io.seed("completions"), settings.prompt) for p in problems],
        Sampling(settings.temperature, settings.max_new_tokens),
    )
    io.counts["problems"] = len(problems)
    io.counts["completions"] = write_rows(io.outputs["rollouts"], completions, Completion)
    io.counts["tokens"] = sum(len(c.token_ids) for c in completions)
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
