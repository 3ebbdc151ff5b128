"""Two runs in one workspace, two experiments side by side, and Cancel in Prefect's page."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.states import Cancelling, StateType

from tasks.running.lock import file_lock, holder, words
from tests.clock import PATIENCE_S, quiet_s
from tests.platform.servers import prefect_server
from tests.platform.test_doors import digests
from tests.platform.workspace import Workspace, environment

ENDLESS = "--set evolve.max_metric_calls=1000000"
"""A search that is still at work whenever somebody looks."""


def started(workspace: Workspace, command: str, log: str, **extra: str) -> subprocess.Popen:
    with (workspace.root / log).open("w") as stream:
        return subprocess.Popen(
            f"exec {command}",
            shell=True,
            cwd=workspace.root,
            env=environment() | extra,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def until(condition, what: str):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_parameters_edited_under_a_run_are_not_recorded(copy: Workspace, trained: Workspace) -> None:
    copy.sh("rm -r data/runs/tiny/2 data/reports")
    run = started(copy, "p2o run --no-run-cache", "run.log")
    until((copy.run / "2" / "rollout.manifest.json").exists, "no second iteration")
    copy.edit("params.yaml", "evaluate: {samples: 2", "evaluate: {samples: 3")
    assert run.wait(PATIENCE_S) == 2
    said = (copy.root / "run.log").read_text().replace("\n", " ")
    assert "parameters of evaluate were edited while a run was going on" in said
    copy.edit("params.yaml", "evaluate: {samples: 3", "evaluate: {samples: 2")
    copy.sh("p2o run --no-run-cache")
    assert digests(copy) == digests(trained)


def units(root: Path) -> list[Path]:
    return sorted(root.rglob("units/*/1/evolve/*-completions-*"))


def test_the_second_run_says_who_is_at_work(copy: Workspace) -> None:
    """The advice it gives, --wait, is one that every command that may be refused takes."""
    copy.sh("rm -r data/runs/tiny/2 data/reports")
    first = started(copy, "p2o run --no-run-cache", "first.log")
    until(lambda: words(copy.root / ".p2o.lock").exists(), "no lock")
    refused = copy.sh("p2o stage mine --iteration 1", check=False)
    assert refused.returncode == 2
    assert f"process {first.pid}" in refused.stderr
    assert "p2o run --no-run-cache" in refused.stderr
    assert "since" in refused.stderr
    assert "Mend" in refused.stderr
    waiting = copy.sh("p2o stage mine --iteration 1 --wait && p2o run --wait")
    assert first.wait(PATIENCE_S) == 0
    assert "distill@2: up to date" in waiting.stdout, "it waited, and found all done"


def test_a_lock_ends_with_its_process(copy: Workspace) -> None:
    first = started(copy, f"p2o run --no-run-cache {ENDLESS}", "first.log")
    (workspace,) = until(lambda: list((copy.root / "experiments").glob("*")), "no workspace")
    until(lambda: words(workspace / ".p2o.lock").exists(), "no lock")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with file_lock(workspace / ".p2o.lock", "test"):
        assert str(os.getpid()) in holder(workspace / ".p2o.lock")
    assert "another process" in holder(workspace / ".p2o.lock"), "nobody is named when nobody is there"


@pytest.mark.slow
def test_two_experiments_side_by_side_do_not_touch_each_other(copy: Workspace, trained: Workspace) -> None:
    copy.sh("rm -r data/runs/tiny/2 data/reports")
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(copy.sh, c) for c in ("p2o run --no-run-cache", "p2o run --arm grpo --iterations 1")]
        for run in runs:
            run.result()
    assert {k: v for k, v in digests(copy).items() if "grpo" not in k} == digests(trained)
    assert (copy.root / "experiments/tiny-grpo/data/runs/tiny-grpo/1/metrics.json").exists()


@dataclass
class Flows:
    """What a Prefect server at ``url`` knows of them."""

    url: str

    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.url)

    def running(self) -> UUID | None:
        with self.client() as client:
            state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))
        return found[0].id if found else None

    def cancel(self, run: UUID) -> None:
        with self.client() as client:
            client.set_flow_run_state(run, Cancelling())

    def state(self, run: UUID) -> StateType | None:
        with self.client() as client:
            return client.read_flow_run(run).state_type


@pytest.fixture
def flows(tmp_path: Path) -> Iterator[Flows]:
    with prefect_server(tmp_path / "server") as server:
        yield Flows(f"{server.url}/api")


def processes_of(workspace: Path) -> list[psutil.Process]:
    """Whatever runs because of this workspace: started in it, or with its path in the command."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        at_home = str(process.info["cwd"] or "").startswith(str(workspace))
        if at_home and process.pid != os.getpid():
            found.append(process)
    return found


def test_cancelled_in_prefect_s_page(copy: Workspace, flows: Flows) -> None:
    """Of the console; test_services.py cancels a worker's. Everything is gone within 10 s, and what was finished
    is there: nothing is computed twice."""
    copy.edit("params.yaml", "max_metric_calls: 150", "max_metric_calls: 1000000")
    copy.sh("rm -r data/runs/tiny/1 data/runs/tiny/2 data/reports")
    url = {"PREFECT_API_URL": flows.url}
    # as a shell script's `p2o run &`: with Ctrl-C ignored
    command = """sh -c "trap '' INT; exec p2o run\""""
    process = started(copy, command, "run.log", **url)
    try:
        until(lambda: len(units(copy.root)) >= 3, (copy.root / "run.log").read_text()[-2000:])
        run = flows.running()
        assert run is not None
        flows.cancel(run)
        cancelled = quiet_s()
        until(lambda: not processes_of(copy.root), f"still there: {processes_of(copy.root)}")
        assert quiet_s() - cancelled < 10
        until(lambda: flows.state(run) == StateType.CANCELLED, f"state {flows.state(run)}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in units(copy.root)}
    assert len(kept) >= 3
    again = started(copy, "p2o run", "again.log")
    try:
        until(lambda: len(units(copy.root)) > len(kept), (copy.root / "again.log").read_text()[-2000:])
    finally:
        os.killpg(again.pid, signal.SIGKILL)
        again.wait()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished units are not written again"


def test_a_comparison_cancelled_in_prefect_s_page(copy: Workspace, flows: Flows) -> None:
    """Its arms are processes of their own: gone within 10 s, those that wait are not started."""
    command = "p2o compare --recipe microworld --quick --jobs 1"
    process = started(copy, command, "run.log", PREFECT_API_URL=flows.url)
    try:
        at_work = lambda: [p for p in processes_of(copy.root) if "flows.console" in p.info["cmdline"]]  # noqa: E731
        until(at_work, (copy.root / "run.log").read_text()[-2000:])
        run = flows.running()
        assert run is not None
        flows.cancel(run)
        cancelled = quiet_s()
        until(lambda: not processes_of(copy.root), f"still there: {processes_of(copy.root)}")
        assert quiet_s() - cancelled < 10
        assert process.wait(PATIENCE_S) == 3
        until(lambda: flows.state(run) == StateType.CANCELLED, f"state {flows.state(run)}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = (copy.root / "run.log").read_text()
    assert "the same run goes on from there" in said
    assert len(list(copy.root.rglob("logs/*.log"))) == 1
