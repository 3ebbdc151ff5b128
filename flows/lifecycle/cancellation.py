"""Runs that a person started, over which no worker watches: cancelled in Prefect's page, or killed and still
"Running" there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, State, StateType

from flows.lifecycle.lost import end_lost_runs, sign

Result = TypeVar("Result")
POLL_S = 2.0
"""Seconds between two looks at the run's state."""


@dataclass
class Cancellation:
    """``asked``: somebody pressed Cancel."""

    asked: bool = False


def until_cancelled(work: Callable[[], Result]) -> Result | State:
    """Do the work of a flow. Returns what the flow has to return: the work's result, or a state when it was
    cancelled, which raises CancelledRun where the flow was called."""
    with _cancellable() as cancellation:
        try:
            return work()
        except KeyboardInterrupt:
            if not cancellation.asked:
                raise
            return Cancelled(message="Cancelled; what is finished is on disk, and the same run goes on from there")


@contextmanager
def _cancellable() -> Iterator[Cancellation]:
    """While the block runs, a run that is being cancelled interrupts it as Ctrl-C would, so that engines and verifier
    are closed on the way out. Runs of a deployment are left to their worker, which ends the process."""
    cancellation, over = Cancellation(), threading.Event()
    if flow_run.id is None or deployment.id is not None:
        yield cancellation
        return
    thread = threading.Thread(target=_watch, args=(str(flow_run.id), cancellation, over), daemon=True)
    thread.start()
    try:
        yield cancellation
    finally:
        over.set()
        thread.join(timeout=2 * POLL_S)


def _watch(run_id: str, cancellation: Cancellation, over: threading.Event) -> None:
    signed = False
    with get_client(sync_client=True) as client:
        while not over.wait(POLL_S):
            try:
                if not signed:
                    sign(client, UUID(run_id))
                    end_lost_runs(client)
                    signed = True
                state = client.read_flow_run(UUID(run_id)).state
            except Exception:  # a server that is away cannot ask for anything; the next look may find it
                continue
            if state is not None and state.type == StateType.CANCELLING and not over.is_set():
                cancellation.asked = True
                os.kill(os.getpid(), signal.SIGINT)
                return
