"""Start and stop the services. Each is a session of its own, so that it outlives the terminal it was started from."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from flows.display import console
from flows.lifecycle.environment import MLFLOW_PORT, PREFECT_PORT
from flows.services.commands import HEALTH, check_port, command, environment
from flows.services.records import (
    MLFLOW,
    NAMES,
    PREFECT,
    WORKER,
    Service,
    folder,
    forget,
    log_of,
    remember,
    running,
)
from flows.tracking.store import make_store, tracking_uri
from p2o_core.schemas import BadInput
from tasks.running.layout import home
from tasks.running.lock import file_lock

PREFECT_FILE = "prefect.yaml"
OPTIONS = {PREFECT: "--prefect-port", MLFLOW: "--mlflow-port"}
DEFAULTS = {PREFECT: PREFECT_PORT, MLFLOW: MLFLOW_PORT}
START_S = 180.0
"""Seconds that a server may take to answer: 8 on a quiet machine, and many more on a busy one."""
STOP_S = 20.0
"""Seconds that a service has to end by itself."""


class ServiceFailed(RuntimeError):
    """A service ended, or did not answer in time. The message has the end of its log."""


def up(workspace: Path, prefect_port: int | None = None, mlflow_port: int | None = None) -> None:
    """Start what does not run, and tell Prefect of work pool, deployments and automations.

    Raises:
        BadInput: a port is taken or asked for twice, a service runs on another port than was asked for, or there is
            no prefect.yaml. Nothing was started.
        ServiceFailed: see there; what did start keeps running.
    """
    asked = {PREFECT: prefect_port, MLFLOW: mlflow_port}
    _ports(asked)
    if not (home(workspace) / PREFECT_FILE).exists():
        raise BadInput(
            f"{home(workspace) / PREFECT_FILE}: no such file. Mend: run in a clone, or name one with --workspace."
        )
    folder().mkdir(parents=True, exist_ok=True)
    with file_lock(folder() / ".up.lock", "p2o up", wait=True):
        ports = _ports(asked)  # another `p2o up` may have been at it meanwhile
        make_store(tracking_uri(workspace))
        before = {name: running(name) for name in NAMES}
        services = {name: before[name] or start(name, ports, workspace) for name in ours(workspace) if name != WORKER}
        for service in services.values():
            wait(service)
        from flows.services.registration import register  # Prefect

        said = register(home(workspace), services[PREFECT].url)
        services[WORKER] = before[WORKER] or start(WORKER, ports, workspace)
    for name, service in services.items():
        how = "running since before" if before[name] else "started"
        console.print(f"{name:8} {service.url or 'picks up the runs that are started in the page':48} {how}")
    for line in said:
        console.print(line, highlight=False)
    console.print("`p2o status` says what runs, `p2o down` ends it. Logs: " + str(folder()), highlight=False)


def ours(workspace: Path) -> list[str]:
    """The services of this clone: MLflow only where MLFLOW_TRACKING_URI names no server elsewhere."""
    return [name for name in NAMES if name != MLFLOW or not tracking_uri(workspace).startswith("http")]


def _ports(asked: Mapping[str, int | None]) -> dict[str, int]:
    """Where each server runs or shall run."""
    ports: dict[str, int] = {}
    for name, port in asked.items():
        there = running(name)
        if there and port not in (None, there.port):
            raise BadInput(
                f"{OPTIONS[name]} {port}: it runs on port {there.port} already. Mend: `p2o down` first, or leave the "
                "option out."
            )
        ports[name] = there.port if there else DEFAULTS[name] if port is None else port
    if len(set(ports.values())) < len(ports):
        raise BadInput(f"--mlflow-port and --prefect-port are both {ports[MLFLOW]}. Mend: two different ports.")
    for name, port in ports.items():
        if not running(name):
            check_port(OPTIONS[name], port)
    return ports


def start(name: str, ports: Mapping[str, int], workspace: Path) -> Service:
    """Start one service; its output goes to its log."""
    with log_of(name).open("a") as log:
        process = subprocess.Popen(
            command(name, ports.get(name, 0), workspace),
            cwd=home(workspace),
            env=environment(name, workspace, ports[PREFECT]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return remember(name, process.pid, ports.get(name, 0))


def wait(service: Service) -> None:
    """Until the server answers. Raises ServiceFailed."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and service.process:
        try:
            if httpx.get(service.url + HEALTH[service.name], timeout=START_S, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    how = f"did not answer in {START_S:.0f} s" if service.process else "ended"
    end = log_of(service.name).read_text(errors="replace")[-2000:]
    raise ServiceFailed(
        f"{service.name} {how}. Mend what its log says ({log_of(service.name)}) and start again:\n{end}"
    )


def down(workspace: Path) -> list[str]:
    """End all that runs, the worker first: a run in progress is told to end too and goes on with the next one of the
    same choices. Returns the names of what was ended."""
    if not folder().exists():
        return []
    with file_lock(folder() / ".up.lock", "p2o down", wait=True):
        found = [service for name in reversed(NAMES) if (service := running(name))]
        for service in found:
            end(service)
        for name in NAMES:
            forget(name)
    return [service.name for service in found]


def end(service: Service) -> None:
    """SIGTERM to the service and what it started, then kill -9 for whatever is left."""
    process = service.process
    if process is None:
        return
    family = [*_children(process), process]
    for member in family:
        _signal(member, kill=False)
    _, alive = psutil.wait_procs(family, STOP_S)
    for member in alive:
        _signal(member, kill=True)
    psutil.wait_procs(alive, STOP_S)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.Error:
        return
