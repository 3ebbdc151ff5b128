"""Runs that Prefect believes to be at work, and whose process is gone: killed, with nobody left to say so.

A run from the console signs with its process. The next run, `p2o up` and `p2o status` look whether the processes of
those "Running" are there. A worker's runs are watched by it, and by their heartbeats (flows/services/registration.py).
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed, StateType

from flows.services.records import process_of

SIGNED = "p2o"
AT_WORK = [StateType.RUNNING, StateType.CANCELLING]
UNSIGNED = timedelta(hours=1)
"""A run signs in its first seconds; one that has not, for so long, was killed in them."""


def sign(client: SyncPrefectClient, run: UUID) -> None:
    """Say on the run which process does it."""
    mine = psutil.Process(os.getpid())
    client.update_flow_run(run, infrastructure_pid=f"{SIGNED}:{socket.gethostname()}:{mine.pid}:{mine.create_time()}")


def end_lost_runs(client: SyncPrefectClient, *, since_before: bool = False) -> list[str]:
    """Set this machine's runs without a process to Crashed; ``since_before`` also those that never signed. Returns
    their names."""
    at_work = FlowRunFilterState(type=FlowRunFilterStateType(any_=AT_WORK))
    lost = [
        run
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=at_work))
        if _is_lost(run, since_before)
    ]
    for run in lost:
        client.set_flow_run_state(run.id, Crashed(message="Its process is gone. The same choices go on where it was."))
    return [run.name for run in lost]


def _is_lost(run: FlowRun, since_before: bool) -> bool:
    if run.deployment_id is not None or run.parent_task_run_id is not None:
        return False
    if not run.infrastructure_pid:
        return since_before and run.start_time is not None and run.start_time < datetime.now(UTC) - UNSIGNED
    kind, host, *process = run.infrastructure_pid.split(":")
    if kind != SIGNED or host != socket.gethostname():
        return False
    pid, started = process
    return process_of(int(pid), float(started)) is None
