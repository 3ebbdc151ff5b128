"""Where MLflow's store is, and a new one made whole."""

from __future__ import annotations

import os
from pathlib import Path

from p2o_core.schemas import written_whole
from tasks.running.layout import home
from tasks.running.lock import file_lock

SQLITE = "sqlite:///"


def tracking_uri(workspace: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside ``mlproject``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{home(workspace) / 'mlflow.db'}"


def make_store(uri: str) -> None:
    """A SQLite store that is not there yet, made beside its place and moved there whole. MLflow makes its tables in
    dozens of migrations in place, and what is killed among them can never be opened again."""
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or path.exists():
        return
    lock = path.with_name(f".{path.name}.lock")
    with file_lock(lock, "making MLflow's store", wait=True):
        if not path.exists():  # else another process made it meanwhile
            from mlflow import MlflowClient  # here: `p2o up` asks for ports and places only

            with written_whole(path) as draft:  # SQLite's journal lies beside it there, and must not meet another file
                MlflowClient(f"{SQLITE}{draft}").search_experiments()
    lock.unlink(missing_ok=True)  # whoever comes now finds the store, in together or not
