"""MLflow's store: killed while it is made, made by two at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.tracking.store import make_store
from tests.clock import PATIENCE_S

MAKE = "import sys; from flows.tracking.store import make_store; make_store(sys.argv[1])"


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4])
def test_a_kill_leaves_no_half_made_store(tmp_path: Path, after_s: float) -> None:
    path, draft = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.draft" / "mlflow.db"
    process = subprocess.Popen([sys.executable, "-c", MAKE, f"sqlite:///{path}"])
    deadline = time.monotonic() + PATIENCE_S
    while not draft.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(after_s)
    process.kill()
    process.wait()
    make_store(f"sqlite:///{path}")
    assert not draft.parent.exists()
    assert [found.name for found in MlflowClient(f"sqlite:///{path}").search_experiments()] == ["Default"]


def test_two_at_once_make_one(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    both = [subprocess.Popen([sys.executable, "-c", MAKE, uri]) for _ in range(2)]
    assert [process.wait(PATIENCE_S) for process in both] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]
