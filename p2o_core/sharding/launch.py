"""Starts the processes of an update with torchrun, on this machine, and sees them to their end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from p2o_core.groups import Group
from p2o_core.schemas import read_record
from p2o_core.sharding.job import LOG, RESULT, Failure, UpdateJob, UpdateResult, error_of, write_job

WORKER = "p2o_core.sharding.worker"
LOOPBACK = "127.0.0.1"
END_S = 20.0
"""Most seconds torchrun may take to end its processes once it is told to; it kills what does not listen."""


def update_in_processes(
    job: UpdateJob,
    groups: Sequence[Group],
    folder: Path,
    processes: int,
    on_step: Callable[[int, int], None] = lambda step, planned: None,
) -> UpdateResult:
    """Run :func:`p2o_core.update.update_policy` in ``processes`` processes. ``folder`` is theirs, and emptied.
    When this returns or raises none of them runs any more.

    Raises:
        NotFinite: as from the update itself, with its samples.
        OSError: the disk is full, for example.
        BadInput: a file that it starts from is not what it should be.
        ProcessFailed: a process died. The update goes on at its last checkpoint when it is asked for again.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_job(folder, job, groups)

    failures: list[Failure] = []

    def on_said(topic: str, content: Any) -> None:
        if topic == "step":
            on_step(*content)
        else:
            failures.append(Failure(**content))

    if run_torchrun(torchrun_command(folder, processes, os.getpid()), folder / LOG, job.threads, on_said):
        raise error_of(failures, folder, processes)
    return read_record(folder / RESULT, UpdateResult)


def torchrun_command(folder: Path, processes: int, stage: int, program: str = WORKER) -> list[str]:
    """Run ``program FOLDER STAGE`` in so many processes. They find each other by a file in the folder: torchrun's own
    meeting place would listen on all of the machine's addresses."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", str(folder / "meeting")]
    size = ["--nnodes", "1", "--nproc-per-node", str(processes), "--max-restarts", "0", "--rdzv-id", "update"]
    run = [sys.executable, "-m", "torch.distributed.run", *meeting, *size, "--local-addr", LOOPBACK]
    return [*run, "-m", program, str(folder), str(stage)]


def run_torchrun(command: Sequence[str], log: Path, threads: int, on_said: Callable[[str, Any], None]) -> int:
    """Exit status of torchrun; ``on_said`` gets what its processes say, ``log`` the rest. However this ends, none of
    them runs any more then: they hold the other end of the pipe, which is read to its end."""
    with log.open("w") as stream:
        torchrun = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            env=os.environ | _environment(threads),
            text=True,
        )
    assert torchrun.stdout is not None
    try:
        for line in torchrun.stdout:
            if line.startswith("["):  # not what a library says before it is silenced
                on_said(*json.loads(line))
        return torchrun.wait()
    finally:
        torchrun.terminate()  # nothing, where it has ended
        try:
            torchrun.wait(END_S)
        except subprocess.TimeoutExpired:
            torchrun.kill()
        torchrun.communicate()


def _environment(threads: int) -> dict[str, str]:
    """Talk over the loopback interface alone."""
    interface = next(
        name for name, addresses in psutil.net_if_addrs().items() if any(a.address == LOOPBACK for a in addresses)
    )
    return {
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": str(threads),
    }
