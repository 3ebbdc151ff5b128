"""The runs of an experiment's iterations, under its parent run: found by tag, or made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

ITERATION_TAG = "p2o.iteration"
POINTS_TAG = "p2o.points"
"""On a child, set before its points: ``<digest of the closing stages' manifests>:<time of the points, ms>``."""


def find_children(client: MlflowClient, parent: Run) -> dict[int, Run]:
    """The iterations' runs; of two with one number the older."""
    children: dict[int, Run] = {}
    condition, token = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'", None
    while token != "":
        found = client.search_runs([parent.info.experiment_id], condition, order_by=["start_time"], page_token=token)
        for run in found:  # a nested `mlflow run` has no iteration
            if ITERATION_TAG in run.data.tags:
                children.setdefault(int(run.data.tags[ITERATION_TAG]), run)
        token = found.token or ""
    return children


def made_child(
    client: MlflowClient, parent: Run, name: str, iteration: int, mark: str, manifests: Sequence[Path], seconds: float
) -> Run:
    """The iteration's run, looked for once more before it is made: another process may have been faster. ``mark`` is
    the digest of the manifests, blank while they are not all there."""
    now = _written(manifests) if mark else int(time.time() * 1000)
    condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.`{ITERATION_TAG}` = '{iteration}'"
    made = client.search_runs([parent.info.experiment_id], condition, max_results=1)
    if made:
        return made[0]
    return client.create_run(
        parent.info.experiment_id,
        start_time=now - int(seconds * 1000),
        run_name=f"{name} · {iteration}",
        tags={
            MLFLOW_PARENT_RUN_ID: parent.info.run_id,
            ITERATION_TAG: str(iteration),
            POINTS_TAG: f"{mark}:{now}",
        },
    )


def time_of_points(client: MlflowClient, child: Run, mark: str, manifests: Sequence[Path]) -> int:
    """In ms, of the points of the manifests with this digest; the first to ask writes it down."""
    known, _, at = child.data.tags.get(POINTS_TAG, "").partition(":")
    if known == mark:
        return int(at)
    now = _written(manifests)
    client.set_tag(child.info.run_id, POINTS_TAG, f"{mark}:{now}")
    child.data.tags[POINTS_TAG] = f"{mark}:{now}"
    return now


def _written(manifests: Sequence[Path]) -> int:
    """When an iteration ended, in ms, as its files say now."""
    return max(manifest.stat().st_mtime_ns for manifest in manifests) // 1_000_000
