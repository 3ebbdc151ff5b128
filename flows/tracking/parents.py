"""The MLflow run of an experiment: the parent run found by its key or made, its parameters."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from flows.tracking.delivery import STORE_ERRORS
from flows.tracking.notes import KEY_TAG, run_name
from flows.tracking.store import SQLITE, tracking_uri
from p2o_core.schemas import BadInput
from tasks.running.layout import home

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages then open with runs and charts, not with traces of language models."""


def experiment_page(workspace: Path, project: str, port: int = 5000) -> str | None:
    """Where ``p2o up`` shows an MLflow experiment; None while it has no runs."""
    uri = tracking_uri(workspace)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return None  # asking would create it
    found = MlflowClient(uri).get_experiment_by_name(project)
    return f"http://127.0.0.1:{port}/#/experiments/{found.experiment_id}/runs" if found else None


def check_project(name: str, workspace: Path) -> None:
    """Raises BadInput where the MLflow experiment was deleted in its page: nothing could be logged there. A store
    that is not there yet or does not answer is no reason."""
    uri = tracking_uri(workspace)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return
    try:
        found = MlflowClient(uri).get_experiment_by_name(name)
    except STORE_ERRORS:
        return
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise BadInput(
            f"MLflow's experiment {name!r} was deleted in its page. Mend: restore it (`mlflow experiments restore "
            f"--experiment-id {found.experiment_id}` with MLFLOW_TRACKING_URI={_shown(uri)}), or give another name as "
            "tracking.project in params.yaml (project in comparisons.yaml)."
        )


def _shown(uri: str) -> str:
    """Without user and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else uri


def parent_run(client: MlflowClient, experiment: Experiment, workspace: Path) -> Run:
    """Find or create the experiment's run. One whose maker was killed right after is found too, and completed."""
    key = hashlib.sha256(f"{experiment.experiment}:{experiment.digest()}".encode()).hexdigest()[:32]
    everywhere = [found.experiment_id for found in client.search_experiments()]
    condition = f"tags.`{KEY_TAG}` = '{key}'"
    found = client.search_runs(everywhere, condition, max_results=1, order_by=["start_time"])
    parent = found[0] if found else _create(client, experiment, workspace, key)
    given = os.environ.get("MLFLOW_RUN_ID")
    if given and given != parent.info.run_id:
        # a later `mlflow run` of the same experiment appears under its parent, with the parameters it was given
        client.set_tag(given, MLFLOW_PARENT_RUN_ID, parent.info.run_id)
    if not parent.data.params:
        _log_params(client, experiment, parent)
    return parent


def _create(client: MlflowClient, experiment: Experiment, workspace: Path, key: str) -> Run:
    """A new run, or the one ``mlflow run`` made for us (MLFLOW_RUN_ID): then it is the experiment's parent. A new
    one has its tags from the start, so that a kill leaves none that is not found again."""
    tags = {
        KEY_TAG: key,
        "p2o.experiment": experiment.experiment,
        "p2o.arm": experiment.arm,
        "p2o.seed": str(experiment.seed),
        "p2o.params_digest": experiment.digest(),
        "mlflow.source.git.commit": git_commit(workspace),
        MLFLOW_RUN_NAME: run_name(experiment),
    }
    given = os.environ.get("MLFLOW_RUN_ID")
    if not given:
        return client.create_run(_project(client, experiment.tracking.project, workspace), tags=tags)
    _log_params(client, experiment, client.get_run(given))
    client.log_batch(given, tags=[RunTag(name, value) for name, value in tags.items()])
    return client.get_run(given)


def _log_params(client: MlflowClient, experiment: Experiment, run: Run) -> None:
    params = [Param(name, str(value)[:6000]) for name, value in flatten(experiment.deciding())]
    missing = [param for param in params if param.key not in run.data.params and param.key != "iterations"]
    client.log_batch(run.info.run_id, params=missing)


def _project(client: MlflowClient, name: str, workspace: Path) -> str:
    """The id of the MLflow experiment, found or made."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    return str(client.create_experiment(name, (home(workspace) / "mlartifacts").as_uri(), KIND))


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """``[("rollout.samples", 8), …]`` from nested parameters."""
    flat: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value))
    return flat


def git_commit(workspace: Path) -> str:
    """The commit of the workspace's repository, ``none`` outside one and without git."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=workspace, capture_output=True, text=True, check=False
        )
    except OSError:  # no such program, or none that may be run
        return "none"
    return answer.stdout.strip() or "none"
