"""`p2o up`: real servers, a real worker, and runs that are started, killed, cancelled and retried as in the page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Running, Scheduled, StateType

from flows.lifecycle.events import LOST_SKILLS, tell
from flows.lifecycle.lost import end_lost_runs
from flows.services.registration import NOTIFIER, automate, automations
from tests.clock import PATIENCE_S
from tests.loopback import free_port
from tests.platform.home import ENDLESS, UNITS, Home, until
from tests.platform.servers import Server, prefect_server
from tests.platform.workspace import Workspace


def page(url: str) -> str:
    return str(urllib.request.urlopen(url, timeout=PATIENCE_S).read().decode())


def test_all_of_it_is_up_on_loopback(home: Home) -> None:
    assert "MLflow" in page(f"http://127.0.0.1:{home.mlflow_port}/")
    assert "Prefect" in page(f"http://127.0.0.1:{home.prefect_port}/")
    settings = json.loads(page(f"http://127.0.0.1:{home.prefect_port}/ui-settings"))
    assert settings["api_url"] == home.api, "the page asks the server it came from"
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=False).stdout
    for port in (home.prefect_port, home.mlflow_port):
        assert f"127.0.0.1:{port}" in listening
        assert f"0.0.0.0:{port}" not in listening
    with home.client() as client:
        names = {deployment.name for deployment in client.read_deployments()}
        known = {automation.name for automation in automations(client)}
        assert all(client.read_automations_by_name(name) for name in known)
    assert names == {"train", "nightly", "compare", "evaluate", "champion", "promote", "checks"}
    assert len(known) == 2, "nothing notifies without a block to notify by"


def test_each_is_a_session_of_its_own(home: Home) -> None:
    """A closed terminal ends the session it belongs to, and none of them is in it."""
    for name, pid in home.pids().items():
        assert os.getsid(pid) == pid, name


def test_a_second_up_changes_nothing(home: Home) -> None:
    before = home.pids()
    said = home.workspace.sh("p2o up").stdout
    assert said.count("running since before") == 3
    assert home.pids() == before
    status = home.workspace.sh("p2o status").stdout
    for pid in before.values():
        assert str(pid) in status
    assert str(home.mlflow_port) in status


def test_other_ports_are_refused(home: Home, fresh: Callable[[], Workspace]) -> None:
    moved = home.workspace.sh(f"p2o up --mlflow-port {free_port()}", check=False)
    assert moved.returncode == 2
    assert "Mend: `p2o down` first" in moved.stderr
    other = fresh()
    taken = other.sh(f"p2o up --prefect-port {home.prefect_port} --mlflow-port {free_port()}", check=False)
    assert taken.returncode == 2
    assert f"--prefect-port {home.prefect_port}" in taken.stderr
    assert "Mend: --prefect-port with another number" in taken.stderr
    assert other.sh("p2o status", check=False).returncode == 1
    assert "Nothing was running" in other.sh("p2o down").stdout


@pytest.mark.slow
def test_a_run_started_in_the_page_is_trained(home: Home) -> None:
    run = home.start(arm="grpo", seed=1, iterations=1)
    until(lambda: home.state(run) in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED), "it does not end")
    said = home.log(run)
    assert home.state(run) == StateType.COMPLETED, said
    with home.client() as client:
        assert client.read_flow_run(run).name == "tiny-grpo-s1 · grpo · seed 1"
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        artifacts = {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=wanted)}
    trained = home.workspace.root / "experiments" / "tiny-grpo-s1" / "data" / "runs" / "tiny-grpo-s1"
    assert (trained / "1" / "metrics.json").exists()
    assert set(artifacts) == {"tiny-grpo-s1-progress", "tiny-grpo-s1-iteration-0", "tiny-grpo-s1-iteration-1"}
    assert artifacts["tiny-grpo-s1-progress"] == 100
    written = artifacts["tiny-grpo-s1-iteration-1"]
    assert "## What was hard" in written
    assert "data:image/svg+xml;base64," in written
    assert f"http://127.0.0.1:{home.mlflow_port}/#/experiments/" in written
    for words in ("hard problems", "tiny-grpo-s1: arm grpo, seed 1", "Iteration 1: ", "tokens"):
        until(lambda words=words: words in home.log(run), f"{words!r} is not in {said}")  # logs come a little later


def test_what_is_wrong_is_refused_before_work(home: Home) -> None:
    for wrong in ({"seed": -1}, {"arm": "pso"}, {"iterations": "many"}):
        with pytest.raises(PrefectHTTPStatusError, match="409"):
            home.start(**wrong)
    run = home.start(settings={"rollout.sampels": 4})
    until(lambda: home.state(run) == StateType.FAILED, "it is not refused")
    with home.client() as client:
        message = client.read_flow_run(run).state.message  # type: ignore[union-attr]
    assert "rollout.sampels" in message
    assert "Mend" in message


@pytest.mark.slow
def test_killed_cancelled_and_killed_with_its_worker(home: Home) -> None:
    """It never stays "Running", and Retry in the page goes on with what was finished."""
    run = home.start(seed=5, settings=ENDLESS, iterations=1)
    home.at_work(run).kill()
    until(lambda: home.state(run) == StateType.CRASHED, "the worker does not see that it was killed")
    units = set(home.workspace.root.rglob(UNITS))

    retry(home, run)
    process = home.at_work(run)
    assert units <= set(home.workspace.root.rglob(UNITS)), "what was finished stayed"
    with home.client() as client:
        client.set_flow_run_state(run, Cancelling())
    until(lambda: not process.is_running(), "its process stays")
    until(lambda: home.state(run) == StateType.CANCELLED, f"state {home.state(run)}")

    retry(home, run)
    process = home.at_work(run)
    worker = home.pids()["worker"]
    for pid in (worker, process.pid):
        os.kill(pid, signal.SIGKILL)
    assert "Not running: worker" in home.workspace.sh("p2o status", check=False).stdout
    until(lambda: home.state(run) == StateType.CRASHED, "its silence is not noticed")
    home.workspace.sh("p2o up")
    assert home.pids()["worker"] != worker


@pytest.mark.slow
def test_a_cron_schedule_fires_a_training_run(home: Home) -> None:
    """As a user adds one: a line in prefect.yaml, and `p2o up` again."""
    train = "    parameters: {wait: true}\n    work_pool: *pool\n"
    every_minute = (
        '    schedules:\n      - {cron: "* * * * *", slug: minutely, active: true}\n    concurrency_limit: *alone\n'
    )
    chosen = train.replace("{wait: true}", "{wait: true, arm: grpo, seed: 3, iterations: 1}") + every_minute
    home.workspace.edit("prefect.yaml", train, chosen)
    home.workspace.sh("p2o up")

    def fired() -> list[FlowRun]:
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])))
        with home.client() as client:
            return [run for run in client.read_flow_runs(flow_run_filter=wanted) if run.auto_scheduled]

    try:
        run, *_ = until(fired, "no run was fired, or none ended well", patience_s=2 * PATIENCE_S)
    finally:
        home.workspace.edit("prefect.yaml", "active: true", "active: false")
        home.workspace.sh("p2o up")
    assert run.name == "tiny-grpo-s3 · grpo · seed 3"
    assert run.expected_start_time.second == 0
    trained = home.workspace.root / "experiments" / "tiny-grpo-s3" / "data" / "runs" / "tiny-grpo-s3"
    assert (trained / "1" / "metrics.json").exists()


def retry(home: Home, run: UUID) -> None:
    """As the button of that name does."""
    with home.client() as client:
        client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True)


def test_down_ends_all_of_it(home: Home) -> None:
    pids = home.pids()
    assert set(pids) == {"prefect", "mlflow", "worker"}
    assert "worker, mlflow, prefect" in home.workspace.sh("p2o down").stdout
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]
    for port in (home.prefect_port, home.mlflow_port):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    assert home.workspace.sh("p2o status", check=False).returncode == 1


def test_a_console_s_run_whose_process_is_gone_has_crashed(prefect: Server) -> None:
    mine = psutil.Process()
    signatures = {
        "gone": f"p2o:{os.uname().nodename}:{mine.pid}:{mine.create_time() - 3600}",
        "here": f"p2o:{os.uname().nodename}:{mine.pid}:{mine.create_time()}",
        "elsewhere": f"p2o:not-{os.uname().nodename}:1:1.0",
        "unsigned": None,
    }
    with SyncPrefectClient(f"{prefect.url}/api") as client:
        flow = client.create_flow_from_name("killed")
        runs = {}
        for name, signature in signatures.items():
            answer = client.request(
                "POST", "/flow_runs/", json={"flow_id": str(flow), "name": name, "state": {"type": "PENDING"}}
            )
            runs[name] = UUID(answer.json()["id"])
            client.update_flow_run(runs[name], infrastructure_pid=signature)
            client.set_flow_run_state(runs[name], Running())
        assert end_lost_runs(client) == ["gone"]
        states = {name: client.read_flow_run(run).state_type for name, run in runs.items()}
    assert states == {name: StateType.CRASHED if name == "gone" else StateType.RUNNING for name in signatures}


class Listener(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Post)
        self.heard: list[Any] = []
        self.timeout = 3


class Post(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()


def test_findings_are_sent_to_the_notification_block(tmp_path: Path) -> None:
    """To a webhook on loopback; other events are not sent."""
    with (
        prefect_server(tmp_path) as server,
        Listener() as listener,
        temporary_settings({PREFECT_API_URL: f"{server.url}/api"}),
        SyncPrefectClient(f"{server.url}/api") as client,
    ):
        url, words = f"http://127.0.0.1:{listener.server_port}/", {"title": "{{subject}}", "text": "{{body}}"}
        CustomWebhookNotificationBlock(name="hook", url=url, json_data=words).save(NOTIFIER)
        automate(client)

        def heard() -> bool:  # again and again: the server takes a moment to know a new automation
            tell("p2o.nothing", "tiny-s3", "of no interest")
            tell(LOST_SKILLS, "tiny-s3", "2 of 10 skills are lost in iteration 4")
            listener.handle_request()
            return bool(listener.heard)

        until(heard, "nothing is sent")
    assert listener.heard[0] == {"title": "P²O Lab: tiny-s3", "text": "2 of 10 skills are lost in iteration 4"}
