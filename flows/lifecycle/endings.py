"""How a flow begins, with its server, and how it ends when nothing is broken: cancelled, or without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings

from flows.lifecycle.environment import PrefectAway
from flows.lifecycle.server import DATABASE_MIB, own_server
from tasks.running.stage import TrainingStopped
from tasks.running.storage import check_room


@contextmanager
def flow_ends() -> Iterator[None]:
    """Around a flow's call, which waits for the run's own server to be up: its ends that are no defects, as the errors
    that the console prints without traceback.

    Raises:
        TrainingStopped: it was cancelled in Prefect's page.
        PrefectAway: the server is gone, which a flow needs at its start and its end; stages do not.
        BadInput: the disk has no room for the database of a Prefect server of its own.
    """
    own = own_server()
    if own is not None:
        own.wait()
    elif PREFECT_API_URL.value() is None:
        check_room(PREFECT_HOME.value(), DATABASE_MIB)
    # a server that ends with the run misses no heartbeats, and the flow would wait a second for their thread to end
    silent = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if own else {}
    try:
        with temporary_settings(silent):
            yield
    except CancelledRun as error:
        raise TrainingStopped(str(error)) from None
    except (httpx.TransportError, RuntimeError) as error:
        server = PREFECT_API_URL.value()
        if server is None or not _is_prefects(error, server):
            raise
        mend = "start it again, or unset PREFECT_API_URL to do without" if own is None else "find out what ended it"
        raise PrefectAway(
            f"Prefect's server {server} is away ({type(error).__name__}: {error}). What is finished is on disk. Mend: "
            f"{mend}; the same command then goes on from here."
        ) from error


def _is_prefects(error: Exception, server: str) -> bool:
    """Not a rollout server's or a teacher's."""
    if isinstance(error, httpx.TransportError):
        return str(error.request.url).startswith(server)
    return "Failed to reach API" in str(error)
