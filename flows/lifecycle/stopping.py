"""Runs that are cancelled or suspended in Prefect's page while they work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, State, StateType

from flows.lifecycle.lost import end_lost_runs, sign

Result = TypeVar("Result")
POLL_S = 2.0
"""Seconds between two looks at the run's state."""
WORKER_S = 20.0
"""Seconds in which a worker ends a run that is being cancelled. It takes some five; but a run that was cancelled,
retried and is cancelled again it leaves alone for minutes (Prefect 3.7): then the run ends itself."""


@dataclass
class Stop:
    """``asked``: the state that somebody put the run into in the page."""

    asked: State | None = None


def until_stopped(work: Callable[[], Result]) -> Result | State:
    """Do the work of a flow. Returns what the flow has to return: the work's result, or a state when it was
    cancelled, which raises CancelledRun where the flow was called.

    Raises:
        Pause: it was suspended. The process ends, and *Resume* has the worker start it again.
    """
    with _stoppable() as stop:
        try:
            return work()
        except KeyboardInterrupt:
            if stop.asked is None:
                raise
            if stop.asked.type == StateType.PAUSED:
                raise Pause(state=stop.asked) from None
            return Cancelled(message="Cancelled; what is finished is on disk, and the same run goes on from there")


@contextmanager
def _stoppable() -> Iterator[Stop]:
    """While the block runs, a run that is being cancelled or suspended interrupts it as Ctrl-C would, so that engines
    and verifier are closed on the way out. To cancel a run of a deployment is left to its worker, which ends the
    process, for :data:`WORKER_S`; of suspending, which the page offers for these alone, a worker takes no notice."""
    stop, over = Stop(), threading.Event()
    if flow_run.id is None:
        yield stop
        return
    thread = threading.Thread(target=_watch, args=(UUID(flow_run.id), deployment.id is None, stop, over), daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        over.set()
        thread.join(timeout=2 * POLL_S)


def _watch(run: UUID, ours: bool, stop: Stop, over: threading.Event) -> None:
    """``ours``: a person started the run, and no worker watches over it."""
    signed, patience_s = not ours, 0.0 if ours else WORKER_S
    stopping = {StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED}
    since: float | None = None
    with get_client(sync_client=True) as client:
        while not over.wait(POLL_S):
            try:
                if not signed:
                    sign(client, run)
                    end_lost_runs(client)
                    signed = True
                state = client.read_flow_run(run).state
            except Exception:  # a server that is away cannot ask for anything; the next look may find it
                continue
            if state is None or state.type not in stopping or over.is_set():
                since = None
                continue
            since = time.monotonic() if since is None else since
            if state.type == StateType.PAUSED or time.monotonic() - since >= patience_s:
                stop.asked = state
                os.kill(os.getpid(), signal.SIGINT)
                return
