"""Serve the Prefect and MLflow pages on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flows.display import console
from flows.settings import MLFLOW_PORT, PREFECT_PORT
from tasks.layout import home
from tasks.tracking import tracking_uri

LOOPBACK = "127.0.0.1"


def commands(workspace: Path) -> list[list[str]]:
    """The two servers' command lines."""
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(MLFLOW_PORT)]
    mlflow += ["--backend-store-uri", tracking_uri(workspace), "--default-artifact-root"]
    mlflow += [(home(workspace) / "mlartifacts").as_uri()]
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(PREFECT_PORT)]
    return [mlflow, prefect]


def serve(workspace: Path) -> None:
    """Run both until Ctrl-C, or until one of them ends."""
    servers = [subprocess.Popen(command) for command in commands(workspace)]
    console.print(
        f"MLflow http://{LOOPBACK}:{MLFLOW_PORT}   Prefect http://{LOOPBACK}:{PREFECT_PORT}   Ctrl-C ends both"
    )
    try:
        while all(server.poll() is None for server in servers):
            try:
                servers[0].wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:
        pass
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
