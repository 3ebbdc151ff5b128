"""How a flow ends when nothing is broken: cancelled, or without its server; and the servers that a kill leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from flows.lifecycle.environment import PrefectAway
from tasks.running.stage import TrainingStopped
from tasks.running.storage import check_room

SERVER = "prefect.server.api.server:create_app"
"""In the command line of every Prefect server."""
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


def end_orphans() -> int:
    """A run without a server of its own starts one for itself, as a child. kill -9 of the run does not reach it; the
    next run of the same PREFECT_HOME ends it. Returns how many there were."""
    if os.environ.get("PREFECT_API_URL"):  # no server of our own is wanted, and the one that is may look the same
        return 0
    home, found = os.environ.get("PREFECT_HOME", ""), 0
    for process in psutil.process_iter(["ppid", "cmdline"]):
        if process.info["ppid"] != 1 or not any(SERVER in word for word in process.info["cmdline"] or ()):
            continue
        try:
            if home and process.environ().get("PREFECT_HOME") == home:
                process.terminate()
                found += 1
        except psutil.Error:
            continue  # ended by itself, or somebody else's
    return found
