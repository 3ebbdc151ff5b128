"""Where a finished iteration is published: MLflow, Prefect's artefacts, DVC's remote. Any of them may be away: training
goes on, the failure is counted and shown, and the next iteration and the end of the run try again. ``p2o track``
delivers to MLflow what is still missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.exceptions import PrefectException

from flows.comparison.arms import Arm, arm_experiment, arm_layout, arms_of, is_done
from flows.comparison.entries import FILE as COMPARISON_FILE
from flows.comparison.entries import Comparison, load_comparison
from flows.display import console
from flows.iteration_page import iteration_page
from flows.lifecycle.environment import MLFLOW_PORT
from flows.progress import artifact_key, in_passing
from flows.services.records import LOOPBACK, MLFLOW, running
from flows.tracking.delivery import Delivery
from flows.tracking.parents import check_project
from flows.tracking.store import tracking_uri
from flows.tracking.tracker import Tracker
from flows.versioning.versions import PushFailed, Versions
from tasks.parameters.experiment import load_experiment
from tasks.running.layout import Layout, home, temporary_of
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock
from tasks.summary import Row

AWAY = (httpx.HTTPError, PrefectException, RuntimeError)
"""What Prefect's client raises where its server is away or does not take something."""
PAGE = 200
"""Artefacts that the server gives at a time."""


class Publishers:
    """The publishers of one run. ``failed`` counts attempts that failed, by ``mlflow/<status>``, ``prefect`` and
    ``remote``; ``warn`` takes each failure's message for Prefect's log."""

    def __init__(
        self, tracker: Tracker, versions: Versions, layout: Layout, *, push: bool, warn: Callable[[str], None]
    ) -> None:
        self.tracker = tracker
        self.versions = versions
        self.layout = layout
        self.push = push
        self.warn = warn
        self.failed: Counter[str] = Counter()
        self._rows: Sequence[Row] = ()
        self._unpublished: list[int] = []
        self._pages: set[str] | None = None
        self._unpushed: list[str] = []

    def stage_done(self, name: str) -> None:
        """A stage of dvc.yaml is on disk and in DVC's cache, now or since an earlier run."""
        self._unpushed.append(name)

    def iteration_done(self, rows: Sequence[Row], *, news: bool) -> None:
        """The iteration of the last of all rows so far (:func:`tasks.summary.experiment_rows`) is whole. One in which
        nothing was made now has its page, unless Prefect was away then."""
        self._rows, iteration = rows, rows[-1]["iteration"]
        if news or not self._has_page(iteration):
            self._unpublished.append(iteration)
        self._tell(last=False)

    def _has_page(self, iteration: int) -> bool:
        """One question for all of the experiment's iterations."""
        if self._pages is None:
            try:
                with in_passing():
                    self._pages = known_pages(self.layout)
            except AWAY:
                return False
        return page_key(self.layout, iteration) in self._pages

    def end(self) -> None:
        """Once more for what is missing, and then the sum."""
        self._tell(last=True)
        if self.failed:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.failed.items()))
            console.print(f"[yellow]Attempts that failed: {counts}[/]", highlight=False)

    def _tell(self, *, last: bool) -> None:
        delivery = self.tracker.log_finished(self._rows)
        if not delivery.ok:
            self._failed(f"mlflow/{delivery.status}", str(delivery))
            show_delivery(delivery, self.layout.workspace, last=last)
        self._publish(last)
        if self.push and self._unpushed:
            self._push(last)

    def _publish(self, last: bool) -> None:
        while self._unpublished:
            try:
                with in_passing():
                    publish_iteration(self.layout, self._rows[: self._unpublished[0] + 1], self._links())
            except AWAY as error:
                said = f"Prefect: artefact not taken ({type(error).__name__}: {error})"
                self._failed("prefect", said)
                mend = "Mend: start its server, then the same command again." if last else "Training goes on."
                console.print(f"[yellow]{said}. {mend}[/]", highlight=False)
                return
            self._unpublished.pop(0)

    def _links(self) -> dict[str, str]:
        """Where an iteration's page leads to."""
        layout = self.layout
        links = {"Report": f"`p2o report --workspace {layout.workspace}`", "Files": f"`{layout.run}`"}
        if page := run_page(self.tracker):
            links = {"MLflow": f"[the run's curves, parameters and iterations]({page})", **links}
        return links

    def _push(self, last: bool) -> None:
        try:
            self.versions.push(self._unpushed)
        except PushFailed as error:
            said = f"DVC remote: {len(self._unpushed)} stages not pushed ({str(error)[:160]})"
            self._failed("remote", said)
            where = self.layout.workspace
            mend = f"Mend: `dvc push` in {where} when it is back." if last else "Training goes on."
            console.print(f"[yellow]{said}. {mend}[/]", highlight=False)
        else:
            self._unpushed = []

    def _failed(self, kind: str, said: str) -> None:
        self.failed[kind] += 1
        self.warn(said)


def publish_iteration(layout: Layout, rows: Sequence[Row], links: Mapping[str, str]) -> None:
    """The page of the last of the rows as a Prefect artefact."""
    iteration = rows[-1]["iteration"]
    create_markdown_artifact(
        iteration_page(layout, rows, links),
        key=page_key(layout, iteration),
        description=f"Iteration {iteration} of {layout.experiment}",
    )


def page_key(layout: Layout, iteration: int) -> str:
    return artifact_key(f"{layout.experiment}-iteration-{iteration}")


def known_pages(layout: Layout) -> set[str]:
    """Keys of the iterations' pages that the server has."""
    wanted = ArtifactCollectionFilter(
        key=ArtifactCollectionFilterKey(like_=artifact_key(f"{layout.experiment}-iteration-") + "%")
    )
    found: set[str] = set()
    with get_client(sync_client=True) as client:
        while True:
            some = client.read_latest_artifacts(artifact_filter=wanted, limit=PAGE, offset=len(found))
            found |= {artifact.key for artifact in some if artifact.key}
            if len(some) < PAGE:
                return found


def run_page(tracker: Tracker) -> str | None:
    """The experiment's run in MLflow's pages; None while MLflow has not taken it."""
    if tracker.found is None:
        return None
    uri = tracking_uri(tracker.layout.workspace)
    served = running(MLFLOW)
    server = uri if uri.startswith("http") else served.url if served else f"http://{LOOPBACK}:{MLFLOW_PORT}"
    info = tracker.found.info
    return f"{server.rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"


def show_delivery(delivery: Delivery, workspace: Path, *, last: bool = True) -> None:
    """Show a delivery that failed; the last one with the command that delivers what is waiting."""
    if not delivery.ok:
        clone = temporary_of(workspace)  # which DVC deletes when its experiment ends
        first = "`dvc exp apply` of this experiment, then " if clone else ""
        mend = f"Mend: {first}`p2o track --workspace {clone or workspace}` delivers when it is back."
        mend = mend if last else "Training goes on."
        console.print(f"[yellow]{delivery}. {mend}[/]", highlight=False)


def log_arm(root: Path, comparison: Comparison, arm: Arm, *, patient: bool = False) -> Delivery:
    """Tell MLflow of one arm and seed of the comparison in ``root``."""
    tracker = Tracker(arm_experiment(comparison, arm, home(root)), arm_layout(root, arm), patient=patient)
    tags = {"p2o.comparison": root.name, "p2o.world": arm.world or "recipe", "p2o.base": str(arm.base)}
    return tracker.log_curves(tags)


def track(root: Path) -> bool:
    """Deliver what the workspace's experiment or comparison has on disk and MLflow lacks. Returns whether MLflow took
    all of it. Raises BadInput where there is neither, and where a run is at work in the workspace: it delivers by
    itself, and what both sent at the same moment would be there twice."""
    if not (root / COMPARISON_FILE).exists():
        experiment = load_experiment(root / "params.yaml")
        check_project(experiment.tracking.project, root)
        with file_lock(root / WORKSPACE_LOCK, command()):
            deliveries = [Tracker(experiment, Layout(root, experiment.experiment), patient=True).log_finished()]
    else:
        deliveries = _track_comparison(root)
    for delivery in deliveries:
        show_delivery(delivery, root)
    if not all(delivery.ok for delivery in deliveries):
        return False
    console.print(f"MLflow: {sum(delivery.logged for delivery in deliveries)} iterations delivered, none is waiting")
    return True


def _track_comparison(root: Path) -> list[Delivery]:
    """In the comparison's order, up to the first arm that MLflow does not take."""
    comparison = load_comparison(root / COMPARISON_FILE)
    check_project(comparison.project, root)
    deliveries: list[Delivery] = []
    for arm in arms_of(comparison):
        if is_done(comparison, arm_experiment(comparison, arm, home(root)), arm_layout(root, arm)):
            deliveries.append(log_arm(root, comparison, arm, patient=True))
            if not deliveries[-1].ok:
                break
    return deliveries
