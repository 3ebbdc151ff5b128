"""What `p2o up` starts, and with which settings."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from flows.services.records import LOOPBACK, MLFLOW, PREFECT, WORKER
from flows.tracking.store import tracking_uri
from p2o_core.schemas import BadInput
from tasks.running.layout import home

POOL = "p2o"
"""The work pool; prefect.yaml names it too."""
HEALTH = {PREFECT: "/api/health", MLFLOW: "/health"}
PREFECT_APPLICATION = "prefect.server.api.server:create_app"


def command(name: str, port: int, workspace: Path) -> list[str]:
    """A service's command line."""
    python = [sys.executable, "-m"]
    if name == PREFECT:  # what `prefect server start` runs, without the 150 MB of its own process
        where = ["--host", LOOPBACK, "--port", str(port), "--timeout-keep-alive", "5", "--log-level", "warning"]
        return [*python, "uvicorn", "--factory", PREFECT_APPLICATION, *where]
    if name == MLFLOW:
        where = ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
        return [*python, "mlflow", "server", *where, "--default-artifact-root", artifacts(workspace)]
    return [*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "p2o-up"]


def artifacts(workspace: Path) -> str:
    return (home(workspace) / "mlartifacts").as_uri()


def environment(name: str, workspace: Path, prefect_port: int) -> dict[str, str]:
    """A service's environment; what ``prepare_environment`` has set is in it."""
    url = f"http://{LOOPBACK}:{prefect_port}/api"
    if name == MLFLOW:
        # not on the command line, which everyone on this machine may read: the address may hold a password
        # no workers for jobs of GenAI judges: eight processes of 230 MB each that nothing here asks for
        jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        return os.environ | jobs | {"MLFLOW_BACKEND_STORE_URI": tracking_uri(workspace)}
    if name == WORKER:
        # found every few seconds by the page's Custom run; the pool itself says how many runs go side by side
        return os.environ | {"PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "5"}
    # Prefect's page asks the default port otherwise, whatever port it was served from
    return os.environ | {"PREFECT_SERVER_UI_API_URL": url, "PREFECT_UI_SERVE_BASE": "/"}


def check_port(option: str, port: int) -> None:
    """Raises BadInput naming the option where nobody can listen on the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port just left is free
        try:
            listener.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise BadInput(
                f"{option} {port}: not to be had on {LOOPBACK} ({error}). Mend: {option} with another number, or stop "
                "what listens there."
            ) from None
