"""MLflow: a parent run an experiment, a child run an iteration, the same ones from whichever door.

Runs are found again by tag and addressed by explicit run ids (``mlflow.active_run()`` is thread-local). What is
logged is a function of the artefacts on disk, so the artefacts are the outbox: an attempt that fails is a status
(``flows/tracking/delivery.py``), and the next attempt delivers all that is missing, in iteration order.

Once, for two reasons. Before anything is sent, the store is asked for the points it has, so that a kill between the
points and the tag "logged", or a server that died in the middle of a batch, leaves nothing out and doubles nothing.
And a point sent twice all the same (a request that timed out here and was served there, two processes at once) is the
same point, which the store's primary key (metric, time, step, run, value) drops: its time stands in a tag of its run
and is read from there. A file's time would do until the file is copied, checked out by DVC or restored from its run
cache: all three make a new one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracing.client import TracingClient

from flows.tracking.delivery import ATTEMPT_S, STORE_ERRORS, Delivery, DeliveryStatus, OutOfTime, Timed, failure
from flows.tracking.iterations import Iterations, deliver_points, mark_of
from flows.tracking.models import policy_digest, register_candidate
from flows.tracking.notes import write_note
from flows.tracking.parents import parent_run
from flows.tracking.points import benchmark_values, curve_points
from flows.tracking.store import make_store, tracking_uri
from p2o_core.evaluation import Scores
from tasks.running.layout import Layout, temporary_of
from tasks.running.manifests import manifest_path, read_manifest
from tasks.running.runner import read_timings
from tasks.summary import Row, experiment_rows

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment

CANDIDATE_TAG = "p2o.candidate"
"""On an experiment's run: digest of the policy that was made the candidate when the run ended."""
FAILED_TAG = "p2o.failed_deliveries"
CURVES_TAG = "p2o.curves_logged"
DATASETS = {"train.parquet": "training", "heldout.parquet": "evaluation"}


class Tracker:
    """Logs one experiment. Creating it asks nothing of the store; ``patient``: an attempt may take as long as it
    takes, for when nothing else waits. ``failures`` counts the attempts that failed, by status."""

    def __init__(self, experiment: Experiment, layout: Layout, *, patient: bool = False) -> None:
        self.experiment = experiment
        self.layout = layout
        self.patient = patient
        self.failures: Counter[str] = Counter()
        self._client: Timed | None = None
        self._deadline = float("inf")
        self._parent: Run | None = None
        self._iterations: Iterations | None = None
        self._curves = -1  # last iteration whose curves are logged

    @property
    def client(self) -> MlflowClient:
        """A client each of whose requests raises OutOfTime where the attempt has no time left for one."""
        self._check_time()
        if self._client is None:
            uri = tracking_uri(self.layout.workspace)
            make_store(uri)
            self._client = Timed(MlflowClient(uri), self._check_time)
        return self._client  # type: ignore[return-value]  # it has all of a client's methods

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OutOfTime

    @property
    def found(self) -> Run | None:
        """The experiment's run; None while MLflow has not taken it."""
        return self._parent

    @property
    def parent(self) -> Run:
        assert self._parent is not None, "_attempt finds it"
        return self._parent

    @property
    def parent_id(self) -> str:
        return self.parent.info.run_id

    @property
    def iterations(self) -> Iterations:
        assert self._iterations is not None, "_attempt finds them"
        return self._iterations

    def log_finished(self, rows: Sequence[Row] | None = None) -> Delivery:
        """Log every iteration that is complete on disk and not logged yet; of ``rows``, where the caller has read them
        (:func:`tasks.summary.experiment_rows`)."""
        marks = self._marks(self._rows() if rows is None else rows)
        inputs = self._datasets() if marks else []
        seconds = read_timings(self.layout)

        def work() -> None:
            for row, mark in marks:
                self.iterations.log(row, mark, seconds.get(row["iteration"], {}), inputs)
            for row, mark in marks:  # after all points: a store that refuses records has the curves
                self.iterations.record(row["iteration"], mark)
            if len(marks) > self.experiment.iterations:
                self._end(*marks[-1])

        def waiting() -> int:
            known = self._iterations
            return sum(known is None or known.lacks(row["iteration"], mark) for row, mark in marks)

        return self._attempt(work, waiting)

    def log_curves(self, tags: dict[str, str]) -> Delivery:
        """For a run of a comparison: every iteration not logged yet, on the parent only, since thousands of child
        runs would bury the compare page. Metrics stand there by iteration and, as ``by_tokens/…``, by generated
        tokens, so that arms are compared at equal cost. Without a child to hold it, a point's time is the parent's
        start plus its iteration in ms."""
        everything = [row for row, _ in self._marks(self._rows())]
        inputs = self._datasets() if everything else []

        def work() -> None:
            rows = [row for row in everything if row["iteration"] > self._curves]
            if self.parent.info.status == "FINISHED" and not rows:
                return
            if rows:
                self.client.log_inputs(self.parent_id, inputs)
            for row in rows:
                points = curve_points(row, self.parent.info.start_time + row["iteration"])
                deliver_points(self.client, self.parent_id, points)
                self.client.set_tag(self.parent_id, CURVES_TAG, str(row["iteration"]))
                self._curves = row["iteration"]
            for name, value in tags.items():
                self.client.set_tag(self.parent_id, name, value)
            write_note(self.client, self.parent.info.experiment_id)
            self._end_parent()

        return self._attempt(work, lambda: sum(row["iteration"] > self._curves for row in everything))

    def log_evaluation(self, iteration: int, scores: Scores) -> Delivery:
        """Benchmarks measured after an iteration (``tasks/benchmarks.py``), on that iteration's run; by their content
        a second log of the same numbers is the same point."""
        values = benchmark_values(scores)
        delivered = False

        def work() -> None:
            nonlocal delivered
            run_id = self.iterations.run(iteration).info.run_id
            known = self.client.get_run(run_id).data.metrics
            for name, value in values.items():
                if known.get(name) != value:
                    self.client.log_metric(run_id, name, value, step=iteration)
            delivered = True

        return self._attempt(work, lambda: int(not delivered))

    def register(self, iteration: int) -> tuple[Delivery, ModelVersion | None]:
        """Make the policy of an iteration that is complete on disk the registered candidate, delivering it before if
        need be. None where the store did not take it."""
        made: list[ModelVersion] = []
        delivery = self.log_finished()
        if delivery.ok:
            found = mark_of(self.layout, iteration)
            delivery = self._attempt(
                lambda: made.append(register_candidate(self.client, self.iterations.finished(iteration, found))),
                lambda: 0,
            )
        return delivery, made[0] if delivery.ok else None

    def _attempt(self, work: Callable[[], None], waiting: Callable[[], int]) -> Delivery:
        """Do what can be done within the limit; what a store raises becomes the delivery's status."""
        self._deadline = float("inf") if self.patient else time.monotonic() + ATTEMPT_S
        before = waiting()
        try:
            if self._iterations is None:
                self._attach()
                before = min(before, waiting())
            work()
            if self.failures:
                self.client.set_tag(self.parent_id, FAILED_TAG, json.dumps(self.failures, sort_keys=True))
        except STORE_ERRORS as error:
            asked = self._iterations is not None
            status, reason = failure(error, tracking_uri(self.layout.workspace))
            self.failures[status] += 1
            self._forget(status)
            return Delivery(status, before - waiting(), waiting(), asked, reason)
        return Delivery(DeliveryStatus.DELIVERED, before - waiting())

    def _forget(self, status: DeliveryStatus) -> None:
        """After a failure nobody knows what the store has. Not so where it was merely slow: an attempt that began by
        asking everything again would get no further than the last one."""
        if status is not DeliveryStatus.SLOW:
            self._parent, self._client, self._iterations = None, None, None

    def _attach(self) -> None:
        """Find or create the parent run, find its children and what is logged of them. The parent is kept, for an
        attempt that runs out of time in between."""
        if self._parent is None:
            self._parent = parent_run(self.client, self.experiment, self.layout.workspace)
        self._curves = int(self.parent.data.tags.get(CURVES_TAG, -1))
        self._iterations = Iterations(self.client, self._tracing, self.experiment, self.layout, self.parent)

    def _tracing(self) -> TracingClient:
        timed = Timed(TracingClient(tracking_uri(self.layout.workspace)), self._check_time)
        return cast(TracingClient, timed)

    def _rows(self) -> list[Row]:
        return experiment_rows(self.layout.run, self.experiment.iterations)

    def _marks(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """The rows of iterations whose last stage is done, each with its mark."""
        marked = [(row, mark_of(self.layout, row["iteration"])) for row in rows]
        return [(row, made) for row, made in marked if made]

    def _end(self, row: Row, mark: str) -> None:
        """The experiment is finished with this iteration; done before, this asks and changes nothing."""
        policy = policy_digest(self.layout, row["iteration"])
        lasts = temporary_of(self.layout.workspace) is None  # DVC deletes the folder: it has no policy to register
        if self.experiment.tracking.registry and lasts and self.parent.data.tags.get(CANDIDATE_TAG) != policy:
            register_candidate(self.client, self.iterations.finished(row["iteration"], mark))
            self.client.set_tag(self.parent_id, CANDIDATE_TAG, policy)
            self.parent.data.tags[CANDIDATE_TAG] = policy
        if self.parent.info.status != "FINISHED":
            write_note(self.client, self.parent.info.experiment_id)
            self._end_parent()

    def _end_parent(self) -> None:
        self.client.set_terminated(self.parent_id, "FINISHED")
        self._parent = self.client.get_run(self.parent_id)

    def _datasets(self) -> list[DatasetInput]:
        """The problem files with the digests their manifest gives them."""
        manifest = read_manifest(manifest_path(self.layout.base, "prepare"))
        inputs = []
        for name, context in DATASETS.items():
            path = self.layout.relative(self.layout.base / name)
            # MLflow allows a digest 36 characters
            dataset = Dataset(name, manifest.outputs[path][:32], "local", f'{{"uri": "{path}"}}')
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        return inputs
