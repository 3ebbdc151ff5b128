"""What runs: services, and the runs that Prefect's server knows of. Asked over HTTP, without importing Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from rich.table import Table

from flows.display import console
from flows.services.records import MLFLOW, NAMES, PREFECT, WORKER, Service, log_of, running

WHERE = {PREFECT: "runs, deployments, schedules", MLFLOW: "metrics, artefacts", WORKER: "starts the runs"}
ASK_S = 30.0
AT_WORK = ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]


def status(names: Sequence[str] = NAMES) -> bool:
    """Print it. Returns whether the services of these names run."""
    services = {name: running(name) for name in names}
    table = Table(title="Services", title_justify="left")
    for heading in ("service", "what for", "address", "process", "since", "log"):
        table.add_column(heading, overflow="fold")
    for name, service in services.items():
        where = (service.url or "–", str(service.pid), _time(service.started)) if service else ("not running", "–", "–")
        table.add_row(name, WHERE[name], *where, str(log_of(name)))
    console.print(table)
    if server := services[PREFECT]:
        _print_runs(server)
    missing = [name for name, service in services.items() if service is None]
    if missing:
        console.print(f"Not running: {', '.join(missing)}. `p2o up` starts what is missing.")
    return not missing


def _print_runs(server: Service) -> None:
    try:
        runs = flow_runs(server)
    except httpx.HTTPError as error:
        console.print(f"[yellow]Prefect's server does not answer ({type(error).__name__}). Its log says why.[/]")
        return
    for run in runs:
        page = f"{server.url}/runs/flow-run/{run['id']}"
        console.print(f"{run['state_name']:10} {run['name']}  {page}", highlight=False, soft_wrap=True)
    if not runs:
        console.print("No run is at work.")


def flow_runs(server: Service) -> list[dict[str, Any]]:
    """Those at work or about to be. Raises HTTPError."""
    wanted = {"flow_runs": {"state": {"type": {"any_": AT_WORK}}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 50}
    answer = httpx.post(f"{server.url}/api/flow_runs/filter", json=wanted, timeout=ASK_S, trust_env=False)
    answer.raise_for_status()
    return list(answer.json())


def _time(stamp: float) -> str:
    return datetime.fromtimestamp(stamp).strftime("%Y-%m-%d %H:%M:%S")
