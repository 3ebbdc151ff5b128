"""What each process of an update runs: ``python -m torch.distributed.run … -m p2o_core.sharding.worker FOLDER STAGE``.

:func:`p2o_core.sharding.launch.update_in_processes` starts it. It reads the job in FOLDER and trains on its share; the
first process writes the new policy, the optimiser and the result, and says each step on standard output. STAGE is the
process that all is done for: nothing outlives it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

WATCHED_S = 0.25
STEP = "step"


def main() -> None:
    """Run this process's part of the job."""
    folder, stage = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with, args=[stage], daemon=True).start()
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not land among the steps
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def on_step(step: int, planned: int) -> None:
        if rank == 0:
            print(STEP, step, planned, file=said, flush=True)

    work(folder, rank, size, on_step)


def work(folder: Path, rank: int, size: int, on_step: Callable[[int, int], None]) -> None:
    """The part of process ``rank`` of ``size`` in the job of a folder. An error is left there, and raised."""
    from p2o_core.sharding.job import write_failure

    try:
        _update(folder, rank, size, on_step)
    except Exception as error:
        write_failure(folder, rank, error)
        raise


def _update(folder: Path, rank: int, size: int, on_step: Callable[[int, int], None]) -> None:
    from p2o_core.checkpoints import UpdateCheckpoints
    from p2o_core.optimizer import PolicyOptimizer
    from p2o_core.policy import settle_arithmetic
    from p2o_core.schemas import write_record
    from p2o_core.sharding.job import RESULT, UpdateResult, read_job
    from p2o_core.sharding.policy import loaded_by
    from p2o_core.sharding.team import joined
    from p2o_core.update import update_policy

    job, groups = read_job(folder)
    settle_arithmetic(job.threads)
    with joined(rank, size, job.policy_config.device, folder / "store") as team:
        policy = loaded_by(team, job.policy, job.base, job.policy_config)
        optimizer = PolicyOptimizer(policy, job.config)
        optimizer.load(job.optimizer)
        checkpoints = UpdateCheckpoints(job.checkpoints, every=job.config.checkpoint_every, team=team)
        report, log_ratios = update_policy(
            policy,
            optimizer,
            groups,
            job.config,
            temperature=job.temperature,
            seed=job.seed,
            checkpoints=checkpoints,
            on_step=on_step,
        )
        policy.save(job.new_policy)
        optimizer.save(job.new_optimizer)
        if team.first:
            measured = [(problem, sample, ratio) for (problem, sample), ratio in log_ratios.items()]
            write_record(folder / RESULT, UpdateResult(report, measured, optimizer.steps_done))


def _end_with(stage: int) -> None:
    """End when torchrun does, or whoever started torchrun, also after a kill -9."""
    torchrun = psutil.Process(os.getppid())
    try:
        while os.getppid() == torchrun.pid and torchrun.ppid() == stage:
            time.sleep(WATCHED_S)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
