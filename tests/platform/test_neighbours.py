"""MLflow, Prefect's server or DVC's remote away: training goes on, and what is missing is delivered later, once."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.tracking.delivery import DeliveryStatus
from flows.tracking.notes import run_name
from flows.tracking.tracker import Tracker
from flows.versioning.versions import PushFailed, Versions
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.summary import experiment_rows
from tests.clock import PATIENCE_S, quiet_s
from tests.loopback import Reply, Request, forward, free_port, served
from tests.platform.servers import Server, at_home, prefect_server
from tests.platform.test_doors import digests
from tests.platform.workspace import Workspace, environment


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with at_home("mlflow server --workers 1 --backend-store-uri sqlite:///mlflow.db", "/health", folder) as server:
        yield server


@dataclass
class Cut:
    """A proxy before MLflow whose line is cut at one request: before the server hears of it, or after it did what it
    says, with the answer lost."""

    target: str
    at: int
    after: bool
    seen: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Reply | None:
        number = len(self.seen)
        self.seen.append(request.path)
        if number >= self.at and not self.after:
            return None
        reply = forward(request, self.target)
        if number < self.at:
            return reply
        self.after = False  # and from now on nobody is there
        return None


def opened(workspace: Workspace) -> tuple[Experiment, Layout]:
    experiment = load_experiment(workspace.root / "params.yaml")
    return experiment, Layout(workspace.root, experiment.experiment)


def assert_delivered_once(database: Path, experiment: Experiment, layout: Layout) -> None:
    """Every number of every iteration is a point on parent and child, none is there twice, and in order."""
    query = """select m.key, m.step, m.value, t.value from metrics m join tags t using (run_uuid)
               join tags k on k.run_uuid = coalesce((select value from tags p where p.run_uuid = m.run_uuid
               and p.key = 'mlflow.parentRunId'), m.run_uuid) and k.key = 'p2o.params_digest' and k.value = ?
               where t.key = 'mlflow.runName' order by m.rowid"""
    with sqlite3.connect(database) as connection:
        points = connection.execute(query, (experiment.digest(),)).fetchall()
    places = [(key, step, run) for key, step, _, run in points]
    assert len(places) == len(set(places)), "no point twice"
    found = {(key, step, run): value for key, step, value, run in points}
    rows = experiment_rows(layout.run, experiment.iterations)
    assert len(rows) == experiment.iterations + 1
    for row in rows:
        iteration = row["iteration"]
        for key, value in row.items():
            if key != "iteration":
                for run in (run_name(experiment), f"{experiment.experiment} · {iteration}"):
                    assert found[key, iteration, run] == pytest.approx(value)
    steps = [step for key, step, run in places if key == "tokens/cumulative" and run == run_name(experiment)]
    assert steps == sorted(steps)


def test_what_a_server_can_do_is_a_status(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit is short only where it is what the status is about: a busy machine is late everywhere else."""

    def says(status: int) -> Callable[[Request], Reply]:
        return lambda request: Reply(status)

    def slowly(request: Request) -> Reply:
        time.sleep(0.7)
        return Reply(200, b"{}")

    with socket.socket() as silent, served(says(503)) as broken, served(says(401)) as closed, served(slowly) as slow:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts, nobody answers
        addresses = {
            f"http://127.0.0.1:{free_port()}": DeliveryStatus.UNREACHABLE,
            "http://no-such-host.invalid": DeliveryStatus.UNREACHABLE,
            f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}": DeliveryStatus.TIMEOUT,
            broken: DeliveryStatus.SERVER_ERROR,
            closed: DeliveryStatus.REFUSED,
            slow: DeliveryStatus.SLOW,
        }
        for address, status in addresses.items():
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1" if status is DeliveryStatus.TIMEOUT else "60")
            monkeypatch.setattr("flows.tracking.tracker.ATTEMPT_S", 1.0 if status is DeliveryStatus.SLOW else 60.0)
            started = quiet_s()
            tracker = Tracker(*opened(trained))
            delivery = tracker.log_finished()
            assert (delivery.status, delivery.logged, delivery.waiting) == (status, 0, 3), str(delivery)
            assert quiet_s() - started < 8, "training is not held"
            assert "up to 3 iterations are waiting" in str(delivery)
            assert "secret" not in str(delivery)
            assert tracker.failures == {status: 1}


@pytest.mark.slow
def test_cut_anywhere_and_delivered_once(trained: Workspace, mlflow: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is cut at one request, and another process (or the same one) delivers the rest."""
    base, layout = opened(trained)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    length = 0
    for number, at in enumerate([10_000, *range(1, 60, 6)]):
        if number > 0 and at >= length:
            break
        experiment = base.model_copy(update={"seed": 1000 + number})  # a parent of its own
        cut = Cut(mlflow.url, at, after=number % 2 == 0)
        with served(cut.answer) as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            tracker = Tracker(experiment, layout, patient=True)
            first = tracker.log_finished()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
        if number == 0:
            length = len(cut.seen)
            assert first.ok
        else:
            assert not first.ok, f"cut at {at} of {length}"
        second = (tracker if number % 3 == 0 else Tracker(experiment, layout, patient=True)).log_finished()
        assert second.ok, str(second)
        assert first.logged + second.logged == 3
        assert_delivered_once(mlflow.folder / "mlflow.db", experiment, layout)
    assert length > 20


@contextmanager
def second_iteration(workspace: Workspace, command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Iteration 2 run once more; the body starts when its rollouts are there. Output is in run.log."""
    workspace.sh("rm -r data/runs/tiny/2 data/reports")
    with (workspace.root / "run.log").open("w") as log:
        process = subprocess.Popen(
            f"{command} p2o run --no-run-cache",
            shell=True,
            cwd=workspace.root,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not (workspace.run / "2" / "rollout.manifest.json").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
            process.wait(PATIENCE_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_run_without_mlflow_and_remote_then_track(copy: Workspace, trained: Workspace, mlflow: Server) -> None:
    """MLflow is away during a whole run and `p2o track` delivers; the remote comes back in the middle."""
    (copy.root / "mlflow.db").unlink()
    copy.edit("params.yaml", "tracking: {project: tests}", "tracking: {project: away, push: true}")
    store = copy.root.parent / "store"
    store.write_text("in the way")
    copy.sh(f"dvc remote add --default store {store}")
    gone = f"MLFLOW_TRACKING_URI=http://127.0.0.1:{free_port()}"
    with second_iteration(copy, gone) as run:
        store.unlink()
    output = (copy.root / "run.log").read_text()
    assert run.returncode == 0, output
    assert "up to 2 iterations are waiting on disk. Training goes on." in output
    assert "up to 3 iterations are waiting on disk. Mend: `p2o track --workspace" in output
    assert "Attempts that failed: mlflow/unreachable 4, remote 2" in output
    assert not (copy.root / "mlflow.db").exists()
    copy.sh("rm -r .dvc/cache data/runs data/reports && dvc pull")
    assert digests(copy) == digests(trained)

    refused = copy.sh(f"{gone} p2o track", check=False)
    assert refused.returncode == 1
    assert "up to 3 iterations are waiting" in refused.stdout
    there = f"MLFLOW_TRACKING_URI={mlflow.url}"
    assert "3 iterations delivered" in copy.sh(f"{there} p2o track").stdout
    for manifest in copy.run.glob("*/evaluate.manifest.json"):  # as a copy, a checkout, DVC's run cache
        os.utime(manifest)
    with sqlite3.connect(mlflow.folder / "mlflow.db") as database:  # as a kill before the tag
        assert database.execute("delete from tags where key = 'p2o.logged'").rowcount > 0
    assert "3 iterations delivered" in copy.sh(f"{there} p2o track").stdout
    assert_delivered_once(mlflow.folder / "mlflow.db", *opened(copy))


def test_remotes_that_are_away(copy: Workspace) -> None:
    versions = Versions(copy.root)
    with pytest.raises(BadInput, match="no default remote"):
        versions.check_remote()
    copy.sh(f"dvc remote add --default store http://127.0.0.1:{free_port()}/store")
    versions.check_remote()
    started = quiet_s()
    with pytest.raises(PushFailed, match="Cannot connect"):
        versions.push(["evaluate@1", "evaluate@2"])
    assert quiet_s() - started < 15


@pytest.mark.slow
def test_prefect_server_killed_in_the_middle(copy: Workspace, trained: Workspace, tmp_path: Path) -> None:
    """kill -9 while a stage runs: started again, the run ends as if nothing had been; left dead, it stops with the
    mend after its last stage, and the same command goes on without it."""
    with prefect_server(tmp_path) as server:
        for again in (True, False):
            retries = 4 if again else 1
            address = f"PREFECT_API_URL={server.url}/api PREFECT_CLIENT_MAX_RETRIES={retries}"
            with second_iteration(copy, address) as run:
                server.kill()
                if again:
                    server.start()
            said = (copy.root / "run.log").read_text()
            assert run.returncode == (0 if again else 1), said
            assert "Traceback" not in said
            assert (f"Prefect's server {server.url}/api is away" in said) == (not again)
            assert digests(copy) == digests(trained)
            assert "up to date" in copy.sh("dvc status").stdout
