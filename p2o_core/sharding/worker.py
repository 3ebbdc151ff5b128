"""What each process of an update runs: ``python -m torch.distributed.run … -m p2o_core.sharding.worker FOLDER STAGE``.

:func:`p2o_core.sharding.launch.update_in_processes` starts it. It reads the job in FOLDER and trains on its share; the
first process writes the new policy, the optimiser and the result; steps and failures are told on standard output. STAGE
is the process that all is done for: nothing outlives it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil

WATCHED_S = 0.25
Say = Callable[[str, object], None]
"""Takes a topic (``step``, ``failure``) and what there is to say, for JSON."""


def main() -> None:
    """Run this process's part of the job."""
    folder, stage = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with, args=[stage], daemon=True).start()
    try:
        work(folder, speaker())
    except Exception:
        traceback.print_exc()
        os._exit(1)  # without a clean end, which exchanges that are under way could hold up; torchrun ends the others


def speaker() -> Say:
    """Speaks over standard output, a line at a time; what a library prints goes to standard error from now on."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda topic, content: print(json.dumps([topic, content]), file=said, flush=True)


def work(folder: Path, say: Say) -> None:
    """This process's part of the job of a folder. What ends it is told, and raised."""
    from p2o_core.sharding.job import failure_of

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        _update(folder, rank, size, lambda step, planned: say("step", [step, planned]) if rank == 0 else None)
    except Exception as error:
        say("failure", asdict(failure_of(rank, error, folder)))
        raise


def _update(folder: Path, rank: int, size: int, on_step: Callable[[int, int], None]) -> None:
    from p2o_core.policy import settle_arithmetic
    from p2o_core.schemas import write_record
    from p2o_core.sharding.job import RESULT, read_job
    from p2o_core.sharding.perform import perform
    from p2o_core.sharding.policy import loaded_by
    from p2o_core.sharding.team import joined

    job, groups = read_job(folder)
    settle_arithmetic(job.threads)
    with joined(rank, size, job.policy_config.device, folder / "store") as team:
        result = perform(job, loaded_by(team, job.policy, job.base, job.policy_config), groups, on_step)
        if team.first:
            write_record(folder / RESULT, result)


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
