"""Serve the Prefect and MLflow pages on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from flows.display import console
from flows.tracking.store import make_store, tracking_uri
from p2o_core.schemas import BadInput
from tasks.running.layout import home

LOOPBACK = "127.0.0.1"


def commands(workspace: Path, mlflow_port: int, prefect_port: int) -> list[list[str]]:
    """The two servers' command lines."""
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port)]
    mlflow += ["--default-artifact-root"]
    mlflow += [(home(workspace) / "mlartifacts").as_uri()]
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(prefect_port)]
    return [mlflow, prefect]


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


def serve(workspace: Path, mlflow_port: int, prefect_port: int) -> None:
    """Run both until Ctrl-C, or until one of them ends.

    Raises:
        BadInput: a port is taken; nothing was started.
    """
    if mlflow_port == prefect_port:
        raise BadInput(f"--mlflow-port and --prefect-port are both {mlflow_port}. Mend: two different ports.")
    check_port("--mlflow-port", mlflow_port)
    check_port("--prefect-port", prefect_port)
    make_store(tracking_uri(workspace))
    # Prefect's page asks the default port otherwise, whatever port it was served from
    environment = os.environ | {
        # not on the command line, which everyone on this machine may read: the address may hold a password
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(workspace),
        "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{prefect_port}/api",
    }
    servers = [subprocess.Popen(command, env=environment) for command in commands(workspace, mlflow_port, prefect_port)]
    console.print(
        f"MLflow http://{LOOPBACK}:{mlflow_port}   Prefect http://{LOOPBACK}:{prefect_port}   Ctrl-C ends both"
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
