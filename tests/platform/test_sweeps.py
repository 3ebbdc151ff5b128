"""``dvc exp``: parameters tried side by side in temporary workspaces, compared in tables and plots."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from dvc.api import exp_show
from mlflow import MlflowClient

from flows.tracking.models import registered_versions
from tasks.running.layout import home, temporary_of
from tests.clock import PATIENCE_S
from tests.platform.workspace import Workspace


def test_a_temporary_workspace_is_at_home_in_its_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("tmpabc", "standalone/tmpabc"):
        temporary = clone / ".dvc" / "tmp" / "exps" / name
        temporary.mkdir(parents=True)
        (temporary / "mlproject").touch()
        assert temporary_of(temporary / "data") == clone
        assert home(temporary) == clone
    assert temporary_of(clone) is None


COMMIT = "git add -A && git -c user.email=t@t -c user.name=t commit -qm run"


def shown(workspace: Workspace, name: str) -> dict[str, object]:
    (found,) = [row for row in exp_show(str(workspace.root)) if row.get("Experiment") == name]
    return found


def test_an_experiment_that_changes_nothing_computes_nothing(copy: Workspace) -> None:
    copy.sh(COMMIT)
    said = copy.sh("dvc exp run --temp --name traces -S +tracking.traces=3").stdout
    assert "p2o resolve" in said
    assert "p2o stage" not in said
    assert copy.sh("git status --porcelain").stdout == "", "the clone is as it was"
    assert shown(copy, "traces")["tracking.traces"] == 3


def test_another_number_of_iterations_in_a_queue(copy: Workspace) -> None:
    """DVC has read dvc.yaml by then: refused with what to do."""
    temporary = copy.root / ".dvc" / "tmp" / "exps" / "tmpabc"
    temporary.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "mlproject"):
        shutil.copyfile(copy.root / name, temporary / name)
    there = Workspace(temporary)
    there.edit("params.yaml", "iterations: 2", "iterations: 3")
    said = there.sh("DVC_STAGE=parameters p2o resolve", check=False)
    assert said.returncode == 2
    assert f"Mend: write iterations: 3 into params.yaml, `p2o resolve` in {copy.root}, then" in said.stderr


@pytest.mark.slow
def test_a_queued_experiment(copy: Workspace) -> None:
    """Only what its setting touches is run, its iterations are in the clone's MLflow, and tables and plots have it."""
    copy.sh(COMMIT)
    copy.sh("dvc exp run -q --queue --name once -S evaluate.samples=3")
    copy.sh("dvc queue start -q --jobs 1")
    deadline = time.monotonic() + PATIENCE_S
    while "Success" not in (said := copy.sh("dvc queue status").stdout):
        assert "Failed" not in said, copy.sh("dvc queue logs once", check=False).stdout
        assert time.monotonic() < deadline, said
        time.sleep(1)
    log = copy.sh("dvc queue logs once").stdout
    assert "evaluate of iteration 2:" in log
    assert "distill of iteration" not in log, "the policies come from the cache"
    assert copy.sh("git status --porcelain").stdout == "", "the clone is as it was"
    assert shown(copy, "once")["params.yaml:evaluate.samples"] == 3
    changed = json.loads(copy.sh("dvc metrics diff HEAD once --json").stdout)
    assert any(path.endswith("summary.json") for path in changed["diff"])
    page = Path(copy.sh("dvc plots diff HEAD once").stdout.strip().removeprefix("file://"))
    assert "accuracy/mean" in page.read_text()
    client = MlflowClient(f"sqlite:///{copy.root / 'mlflow.db'}")
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(everywhere, "params.`evaluate.samples` = '3'")
    assert len(runs) == 1
    assert len(registered_versions(client)) == 1, "DVC deletes the folder: nothing of it is registered"
