"""A clone in which `p2o up` has started everything, for tests that use its servers and pages."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.states import StateType

from tests.clock import PATIENCE_S
from tests.loopback import free_port
from tests.platform.workspace import Workspace

UNITS = "units/*/1/evolve/*-completions-*"
ENDLESS = {"evolve.max_metric_calls": 1_000_000}


@dataclass
class Home:
    """A clone in which `p2o up` has started everything."""

    workspace: Workspace
    prefect_port: int
    mlflow_port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}/api"

    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.api)

    def pids(self) -> dict[str, int]:
        folder = self.workspace.root / ".prefect" / "services"
        return {path.stem: json.loads(path.read_text())["pid"] for path in folder.glob("*.json")}

    def start(self, **parameters: Any) -> UUID:
        """As *Custom run* of the deployment `train` does."""
        with self.client() as client:
            deployment = client.read_deployment_by_name("train/train")
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def state(self, run: UUID) -> StateType | None:
        with self.client() as client:
            return client.read_flow_run(run).state_type

    def process(self, run: UUID) -> psutil.Process | None:
        """The one that does the run."""
        for process in psutil.process_iter(["cmdline"]):
            try:
                if "prefect.engine" in str(process.info["cmdline"]) and process.environ().get(
                    "PREFECT__FLOW_RUN_ID"
                ) == str(run):
                    return process
            except psutil.Error:
                continue
        return None

    def at_work(self, run: UUID) -> psutil.Process:
        """Once it searches."""
        until(lambda: self.state(run) == StateType.RUNNING and self.units() >= 3, f"no search: {self.log(run)}")
        process = self.process(run)
        assert process is not None
        return process

    def units(self) -> int:
        try:
            return len(list(self.workspace.root.rglob(UNITS)))
        except FileNotFoundError:  # a stage ended meanwhile
            return 0

    def log(self, run: UUID) -> str:
        with self.client() as client:
            wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
            return "\n".join(entry.message for entry in client.read_logs(wanted, limit=200))


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(1)
    return found


@contextmanager
def started(workspace: Workspace, root: Path) -> Iterator[Home]:
    """A copy of the workspace in which everything runs."""
    shutil.copytree(workspace.root, root, symlinks=True, ignore=shutil.ignore_patterns(".prefect"))
    home = Home(Workspace(root), free_port(), free_port())
    home.workspace.sh(f"p2o up --prefect-port {home.prefect_port} --mlflow-port {home.mlflow_port}")
    yield home
    home.workspace.sh("p2o down")
