"""How a flow ends when it does not succeed and nothing is broken: cancelled, or without its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from flows.settings import PrefectAway
from tasks.health import TrainingStopped
from tasks.running.storage import check_room

DATABASE_MIB = 8
"""Prefect's and MLflow's, new, with their journals; without room Prefect's server fails in a thousand lines."""


@contextmanager
def flow_ends() -> Iterator[None]:
    """Around a flow's call: its ends that are no defects, as the errors that the console prints without traceback.

    Raises:
        TrainingStopped: it was cancelled in Prefect's page.
        PrefectAway: the server is gone, which a flow needs at its start and its end; stages do not.
        BadInput: the disk has no room for the database of a Prefect server of its own.
    """
    if PREFECT_API_URL.value() is None:
        check_room(PREFECT_HOME.value(), DATABASE_MIB)
    try:
        yield
    except CancelledRun as error:
        raise TrainingStopped(str(error)) from None
    except (httpx.TransportError, RuntimeError) as error:
        server = PREFECT_API_URL.value()
        if server is None or not _is_prefects(error, server):
            raise
        raise PrefectAway(
            f"Prefect's server {server} is away ({type(error).__name__}: {error}). What is finished is on disk. Mend: "
            "start it again, or unset PREFECT_API_URL to do without; the same command then goes on from here."
        ) from error


def _is_prefects(error: Exception, server: str) -> bool:
    """Not a rollout server's or a teacher's."""
    if isinstance(error, httpx.TransportError):
        return str(error.request.url).startswith(server)
    return "Failed to reach API" in str(error)
