"""What an experiment's iterations are in MLflow: runs of their own, with points and files, and records.

Each of the two is marked on its run when it is there whole, by a digest of the manifests it was made from. What is
marked so is not looked at again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from flows.tracking.children import find_children, made_child, time_of_points
from flows.tracking.delivery import STORE_ERRORS
from flows.tracking.points import iteration_points, missing_points, token_points
from flows.tracking.records import Finished, Records
from tasks.registry import closing_stages
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment

LOGGED_TAG = "p2o.logged"
"""On a child: digest of the closing stages' manifests whose points, files and inputs are all delivered."""
RECORDED_TAG = "p2o.recorded"
"""On a child, in the same way: its templates, policy and traces are delivered."""
ARTIFACTS = ("templates.json", "mining.json", "update.json", "metrics.json")


def manifests(layout: Layout, iteration: int) -> list[Path]:
    """Of the stages that close the iteration."""
    return [manifest_path(layout.iteration(iteration), stage.name) for stage in closing_stages(iteration)]


def mark_of(layout: Layout, iteration: int) -> str:
    """Digest of the manifests of the stages that close the iteration; blank until all of them are there."""
    paths = manifests(layout, iteration)
    if not all(path.exists() for path in paths):
        return ""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def deliver_points(client: MlflowClient, run_id: str, points: Sequence[Metric]) -> None:
    """Send those that the run lacks."""
    missing = missing_points(client, client.get_run(run_id), points)
    if missing:
        client.log_batch(run_id, metrics=missing)


class Iterations:
    """The iterations' runs under an experiment's run, as the store had them when this was made. All methods raise what
    the store does."""

    def __init__(
        self,
        client: MlflowClient,
        tracing: Callable[[], TracingClient],
        experiment: Experiment,
        layout: Layout,
        parent: Run,
    ) -> None:
        self.client = client
        self.experiment = experiment
        self.layout = layout
        self.parent = parent
        self._runs = find_children(client, parent)
        self._logged = _tags(self._runs, LOGGED_TAG)
        self._recorded = _tags(self._runs, RECORDED_TAG)
        self._tracing = tracing
        self._records: Records | None = None

    def lacks(self, iteration: int, mark: str) -> bool:
        """Whether anything of the iteration with this mark is not delivered."""
        return self._logged.get(iteration) != mark or (self._recording and self._recorded.get(iteration) != mark)

    def log(self, row: dict[str, Any], mark: str, seconds: dict[str, float], inputs: list[DatasetInput]) -> None:
        """Points, files and data sets of an iteration, on its run and on the experiment's."""
        iteration = row["iteration"]
        if self._logged.get(iteration) == mark:
            return
        run = self.run(iteration, sum(seconds.values()))
        if run.data.tags.get(LOGGED_TAG) != mark:
            now = time_of_points(self.client, run, mark, manifests(self.layout, iteration))
            points = iteration_points(row, seconds, now)
            parent_id = self.parent.info.run_id
            deliver_points(self.client, run.info.run_id, points)
            deliver_points(self.client, parent_id, points + token_points(row, points))  # arms are compared as curves
            self._upload(run.info.run_id, self.layout.iteration(iteration))
            for run_id in (run.info.run_id, parent_id) if iteration == 0 else (run.info.run_id,):
                self.client.log_inputs(run_id, inputs)
            self.client.set_terminated(run.info.run_id, "FINISHED", now)
            self.client.set_tag(run.info.run_id, LOGGED_TAG, mark)
        self._logged[iteration] = mark

    def record(self, iteration: int, mark: str) -> None:
        """Templates, policy and traces of an iteration that is logged, where the configuration wants them."""
        if not self._recording or self._recorded.get(iteration) == mark:
            return
        if self._records is None:
            self._records = Records(self.client, self._tracing(), self.experiment, self.parent)
        self._records.deliver(self.finished(iteration, mark))
        self.client.set_tag(self._runs[iteration].info.run_id, RECORDED_TAG, mark)
        self._recorded[iteration] = mark

    def run(self, iteration: int, seconds: float = 0.0) -> Run:
        """The iteration's run, made if there is none; ``seconds`` is what its stages took."""
        if iteration not in self._runs:
            name, paths = self.experiment.experiment, manifests(self.layout, iteration)
            self._runs[iteration] = made_child(
                self.client, self.parent, name, iteration, mark_of(self.layout, iteration), paths, seconds
            )
        return self._runs[iteration]

    def finished(self, iteration: int, mark: str) -> Finished:
        """An iteration that is logged, for its records."""
        run = self._runs[iteration]
        at = time_of_points(self.client, run, mark, manifests(self.layout, iteration))
        return Finished(self.experiment, self.layout, iteration, self.parent, run, mark, at)

    @property
    def _recording(self) -> bool:
        tracking = self.experiment.tracking
        return tracking.registry or tracking.traces > 0

    def _upload(self, run_id: str, folder: Path) -> None:
        for path in (folder / name for name in ARTIFACTS):
            if path.exists():
                try:
                    self.client.log_artifact(run_id, str(path))
                except STORE_ERRORS:
                    raise
                except Exception as error:  # S3, Azure and the like raise the errors of their own libraries
                    raise MlflowException(f"{type(error).__name__}: {error}") from error


def _tags(runs: Mapping[int, Run], name: str) -> dict[int, str]:
    return {iteration: run.data.tags[name] for iteration, run in runs.items() if name in run.data.tags}
