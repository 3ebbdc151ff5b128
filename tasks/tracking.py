"""MLflow: a parent run an experiment, a child run an iteration, the same ones from whichever door.

Runs are found again by tag and addressed by explicit run ids (``mlflow.active_run()`` is thread-local). What is
logged is a function of the artefacts on disk, and a tag on the child remembers which manifest was logged: logging
twice is harmless, and an experiment made without MLflow can be logged later.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from tasks.layout import Layout, home
from tasks.manifests import manifest_path
from tasks.report import experiment_rows

if TYPE_CHECKING:
    from tasks.experiment import Experiment

SQLITE = "sqlite:///"
KEY_TAG = "p2o.key"
ITERATION_TAG = "p2o.iteration"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages then open with runs and charts, not with traces of language models."""
CURVES_TAG = "p2o.curves_logged"
ALIGNED = ("accuracy/", "train/", "best_template")
"""Metrics that a comparison also logs by generated tokens."""
DATASETS = {"train.parquet": "training", "heldout.parquet": "evaluation"}
ARTIFACTS = ("templates.json", "mining.json", "update.json", "metrics.json")
FINISHED = "evaluate"
"""The stage that ends an iteration: with its manifest the iteration is logged."""


def tracking_uri(workspace: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside ``mlproject``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{home(workspace) / 'mlflow.db'}"


class Tracker:
    """Logs one experiment. Creating it finds or creates the parent run."""

    def __init__(self, experiment: Experiment, layout: Layout) -> None:
        self.experiment = experiment
        self.layout = layout
        self.client = MlflowClient(tracking_uri(layout.workspace))
        self.key = hashlib.sha256(f"{experiment.experiment}:{experiment.digest()}".encode()).hexdigest()[:32]
        self.parent = self._find(f"tags.`{KEY_TAG}` = '{self.key}'") or self._create_parent()
        self._nest_project_run()

    @property
    def parent_id(self) -> str:
        return self.parent.info.run_id

    def log_finished(self) -> int:
        """Log every iteration that is complete on disk and not logged yet. Returns how many were."""
        rows = experiment_rows(self.layout.run, self.experiment.last_iteration)
        seconds = _timings(self.layout)
        logged = sum(self._log_iteration(row, seconds) for row in rows)
        if len(rows) > self.experiment.last_iteration:
            self.client.set_terminated(self.parent_id, "FINISHED")
        return logged

    def log_curves(self, tags: dict[str, str]) -> int:
        """For a run of a comparison: every iteration not logged yet, on the parent only, since thousands of child
        runs would bury the compare page. Metrics stand there by iteration and, as ``by_tokens/…``, by generated
        tokens, so that arms are compared at equal cost. Returns how many iterations were logged."""
        done = int(self.parent.data.tags.get(CURVES_TAG, -1))
        rows = [
            row
            for row in experiment_rows(self.layout.run, self.experiment.last_iteration)
            if row["iteration"] > done and manifest_path(self.layout.iteration(row["iteration"]), FINISHED).exists()
        ]
        finished = self.client.get_run(self.parent_id).info.status == "FINISHED"
        if finished and not rows:
            return 0
        for row in rows:
            now = _written(manifest_path(self.layout.iteration(row["iteration"]), FINISHED))
            values = {name: float(value) for name, value in row.items() if name != "iteration"}
            points = [Metric(name, value, now, row["iteration"]) for name, value in values.items()]
            points += [
                Metric(f"by_tokens/{name}", value, now, row["tokens/cumulative"])
                for name, value in values.items()
                if name.startswith(ALIGNED)
            ]
            self.client.log_batch(self.parent_id, metrics=points, tags=[RunTag(CURVES_TAG, str(row["iteration"]))])
        if rows:
            self.client.log_inputs(self.parent_id, self._datasets())
        for name, value in tags.items():
            self.client.set_tag(self.parent_id, name, value)
        self.client.set_terminated(self.parent_id, "FINISHED")
        return len(rows)

    def _log_iteration(self, row: dict[str, Any], seconds: dict[int, dict[str, float]]) -> bool:
        iteration = row["iteration"]
        folder = self.layout.iteration(iteration)
        manifest = manifest_path(folder, FINISHED)
        if not manifest.exists():
            return False
        mark = hashlib.sha256(manifest.read_bytes()).hexdigest()
        child = self._child(iteration)
        if child.data.tags.get("p2o.logged") == mark:
            return False
        values = {name: value for name, value in row.items() if name != "iteration"} | {
            f"seconds/{stage}": value for stage, value in seconds.get(iteration, {}).items()
        }
        now = _written(manifest)
        points = [Metric(name, float(value), now, iteration) for name, value in values.items()]
        for run_id in (child.info.run_id, self.parent_id):  # on the parent too: arms are compared as curves
            self.client.log_batch(run_id, metrics=points)
        for name in ARTIFACTS:
            if (folder / name).exists():
                self.client.log_artifact(child.info.run_id, str(folder / name))
        self.client.log_inputs(child.info.run_id, self._datasets())
        self.client.set_tag(child.info.run_id, "p2o.logged", mark)
        self.client.set_terminated(child.info.run_id, "FINISHED")
        return True

    def log_evaluation(self, iteration: int, metrics: dict[str, Any]) -> None:
        """Benchmarks measured after an iteration (``tasks/benchmarks.py``), on that iteration's run; by their content
        a second log of the same numbers is the same point."""
        child = self._child(iteration)
        values = {f"benchmark/{name}": metrics[name] for name in ("mean_tokens", "truncated")}
        for kind in ("accuracy", "maj_at"):
            values |= {f"benchmark/{kind}/{name}": value for name, value in metrics[kind].items()}
        for k, by_name in metrics["pass_at"].items():
            values |= {f"benchmark/pass_at_{k}/{name}": value for name, value in by_name.items()}
        for name, lengths in metrics["lengths"].items():
            values |= {f"benchmark/{kind}/{name}": value for kind, value in lengths.items()}
        for name, value in values.items():
            if child.data.metrics.get(name) != value:
                self.client.log_metric(child.info.run_id, name, value, step=iteration)

    def _datasets(self) -> list[DatasetInput]:
        """The problem files with the digests their manifest gives them."""
        from p2o_core.schemas import read_json

        manifest = read_json(manifest_path(self.layout.base, "prepare"))
        inputs = []
        for name, context in DATASETS.items():
            path = self.layout.relative(self.layout.base / name)
            # MLflow allows a digest 36 characters
            dataset = Dataset(name, manifest["outputs"][path][:32], "local", f'{{"uri": "{path}"}}')
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        return inputs

    def _child(self, iteration: int) -> Run:
        found = self._find(
            f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_id}' and tags.`{ITERATION_TAG}` = '{iteration}'"
        )
        return found or self.client.create_run(
            self.parent.info.experiment_id,
            run_name=f"{self.experiment.experiment} · {iteration}",
            tags={MLFLOW_PARENT_RUN_ID: self.parent_id, ITERATION_TAG: str(iteration)},
        )

    def _find(self, condition: str) -> Run | None:
        everywhere = [e.experiment_id for e in self.client.search_experiments()]
        runs = self.client.search_runs(everywhere, filter_string=condition, max_results=1, order_by=["start_time"])
        return runs[0] if runs else None

    def _create_parent(self) -> Run:
        """A new run, or the one ``mlflow run`` made for us (MLFLOW_RUN_ID): then it is the experiment's parent."""
        given = os.environ.get("MLFLOW_RUN_ID")
        run = self.client.get_run(given) if given else self._new_run()
        params = [Param(name, str(value)[:6000]) for name, value in flatten(self.experiment.model_dump(mode="json"))]
        known = run.data.params
        tags = {
            KEY_TAG: self.key,
            "p2o.experiment": self.experiment.experiment,
            "p2o.arm": self.experiment.arm,
            "p2o.seed": str(self.experiment.seed),
            "p2o.params_digest": self.experiment.digest(),
            "mlflow.source.git.commit": git_commit(self.layout.workspace),
            MLFLOW_RUN_NAME: self.experiment.experiment,
        }
        self.client.log_batch(
            run.info.run_id,
            params=[param for param in params if param.key not in known and param.key != "iterations"],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        return self.client.get_run(run.info.run_id)

    def _new_run(self) -> Run:
        name = self.experiment.tracking.project
        found = self.client.get_experiment_by_name(name)
        artifacts = (home(self.layout.workspace) / "mlartifacts").as_uri()
        experiment_id = found.experiment_id if found else self.client.create_experiment(name, artifacts, KIND)
        return self.client.create_run(experiment_id)

    def _nest_project_run(self) -> None:
        """A later ``mlflow run`` of the same experiment appears under its parent, with the parameters it was given."""
        given = os.environ.get("MLFLOW_RUN_ID")
        if given and given != self.parent_id:
            self.client.set_tag(given, MLFLOW_PARENT_RUN_ID, self.parent_id)


def experiment_page(workspace: Path, project: str, port: int = 5000) -> str | None:
    """Where ``p2o ui`` shows an MLflow experiment; None while it has no runs."""
    uri = tracking_uri(workspace)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return None  # asking would create it
    found = MlflowClient(uri).get_experiment_by_name(project)
    return f"http://127.0.0.1:{port}/#/experiments/{found.experiment_id}/runs" if found else None


def _written(manifest: Path) -> int:
    """When an iteration ended, in ms: the timestamp of its points. A point logged again after a kill is then the
    same point to MLflow's store, not a second one."""
    return manifest.stat().st_mtime_ns // 1_000_000


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """``[("rollout.samples", 8), …]`` from nested parameters; ``iterations`` stays one entry."""
    flat: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict) and name != "iterations":
            flat += flatten(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value))
    return flat


def _timings(layout: Layout) -> dict[int, dict[str, float]]:
    from p2o_core.schemas import read_json

    by_iteration: dict[int, dict[str, float]] = {}
    for key, seconds in (read_json(layout.timings) if layout.timings.exists() else {}).items():
        stage, iteration = key.split("@")
        by_iteration.setdefault(int(iteration), {})[stage] = seconds
    return by_iteration


def git_commit(workspace: Path) -> str:
    """The commit of the workspace's repository, ``none`` outside one."""
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=workspace, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "none"
