"""The flow that makes a trained policy MLflow's champion, where it beats the one that is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.comparison.gate import Promotion, read_rewards
from flows.display import console, publish_table
from flows.lifecycle.secrets import prefect_secret
from flows.lifecycle.stopping import until_stopped
from flows.tracking.contest import compared, deliver
from flows.tracking.delivery import STORE_ERRORS, failure
from flows.tracking.models import CHAMPION, POLICY_TAG, aliased, model_name
from flows.tracking.parents import check_project
from flows.tracking.store import tracking_uri
from flows.tracking.tracker import Tracker
from p2o_core.config import EvaluateConfig
from p2o_core.schemas import BadInput
from tasks.benchmarks import evaluated_in, evaluation_settings
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout, home
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock
from tasks.running.runtime import Runtime
from tasks.running.stage import TrainingStopped

PROMOTE_LOCK = ".p2o.promote.lock"


class NotPromoted(TrainingStopped):
    """The candidate is worse than the champion, or not surely better. The message has the numbers."""


@task(task_run_name="measure-{who}", cache_policy=NO_CACHE, persist_result=False)
def measured(
    who: str, experiment: Experiment, layout: Layout, iteration: int, settings: EvaluateConfig
) -> dict[str, list[float]]:
    """Rewards on the held-out problems, by problem."""
    with Runtime(prefect_secret) as runtime:
        return read_rewards(evaluated_in(experiment, layout, iteration, [], settings, runtime))


@flow(name="promote", log_prints=False)
def promote(
    workspace: str = ".",
    iteration: int | None = None,
    candidate_only: bool = False,
    settings: dict[str, Any] | None = None,
) -> bool | State:
    """Register the policy of an iteration (the last by default) as candidate, measure it and the champion on the same
    held-out problems, and make it the champion where it is better. Without a champion it has to beat its own base.

    Args:
        workspace: folder with params.yaml.
        iteration: whose policy; the last by default.
        candidate_only: register it and compare nothing.
        settings: changes to the ``evaluate`` section, for both.

    Returns:
        Whether MLflow took it; False while it is away.

    Raises:
        NotPromoted: it is worse, or not surely better.
        BadInput: there is no such policy, the champion's is not where it was, or it has other held-out problems.
    """
    root = Path(workspace).resolve()

    def work() -> bool:
        with file_lock(home(root) / PROMOTE_LOCK, command(), wait=True):
            return _promote(root, iteration, candidate_only, settings or {})

    return until_stopped(work)


def _promote(root: Path, iteration: int | None, candidate_only: bool, settings: dict[str, Any]) -> bool:
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    section = evaluation_settings(experiment.evaluate, settings)
    check_project(experiment.tracking.project, root)
    at = experiment.iterations if iteration is None else iteration
    if not (layout.iteration(at) / "evaluate.manifest.json").exists():
        raise BadInput(f"{layout.iteration(at)}: iteration {at} is not finished. Mend: `p2o run`, or --iteration.")
    with file_lock(root / WORKSPACE_LOCK, command(), wait=True):  # a run at work delivers too
        delivery, version = Tracker(experiment, layout, patient=True).register(at)
    if version is None:
        return _away(f"{delivery}")
    name, client = model_name(experiment), MlflowClient(tracking_uri(root))
    console.print(f"Candidate: version {version.version} of {name}, {experiment.experiment} after iteration {at}")
    if candidate_only:
        return True
    try:
        champion = aliased(client, name, CHAMPION)
        if champion is not None and champion.tags[POLICY_TAG] == version.tags[POLICY_TAG]:
            console.print(f"It is the champion already: version {champion.version} of {name}")
            return True
        promotion = compared(experiment, layout, at, version, champion, section, measured)
        _publish(experiment, promotion)
        deliver(client, version, promotion)
    except STORE_ERRORS as error:
        status, reason = failure(error, tracking_uri(root))
        return _away(f"MLflow: {status} ({reason})")
    if promotion.verdict != "better":
        raise NotPromoted(f"Version {version.version} of {name} is not promoted. {promotion}")
    console.print(f"Champion: version {version.version} of {name}. {promotion}")
    return True


def _away(said: str) -> bool:
    get_run_logger().warning("%s", said)
    console.print(f"[yellow]{said}. Mend: the same command when it is back; nothing is measured twice.[/]")
    return False


def _publish(experiment: Experiment, promotion: Promotion) -> None:
    rows = [{"problems of": tier} | asdict(measure) for tier, measure in promotion.measures.items()]
    publish_table(f"{experiment.experiment}-promotion", rows, f"{promotion.candidate}: {promotion}")
