"""The flow that measures a trained policy on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from rich.table import Table

from flows.display import console, publish_table
from flows.lifecycle.secrets import prefect_secret
from flows.lifecycle.stopping import until_stopped
from flows.parameters import ArmName, Iteration, RecipeName, Seed, run_name
from flows.tracking.contest import whereabouts
from flows.tracking.delivery import store_needed
from flows.tracking.models import CHAMPION, aliased, model_name
from flows.tracking.parents import check_project
from flows.tracking.store import tracking_uri
from flows.tracking.tracker import Tracker
from flows.versioning.workspace import preview
from p2o_core.config import EvaluateConfig
from p2o_core.schemas import BadInput, read_record
from tasks.benchmarks import METRICS, BenchmarkScores, benchmark_source, evaluated_in, evaluation_settings
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.runtime import Runtime


@task(task_run_name="benchmarks-{iteration}", cache_policy=NO_CACHE, persist_result=False)
def benchmark_task(
    experiment: Experiment, layout: Layout, iteration: int, benchmarks: list[str], settings: EvaluateConfig
) -> BenchmarkScores:
    """All benchmarks with one warm engine."""
    sources = [benchmark_source(text) for text in benchmarks]
    with Runtime(prefect_secret) as runtime:
        folder = evaluated_in(experiment, layout, iteration, sources, settings, runtime)
    return read_record(folder / METRICS, BenchmarkScores)


@flow(name="evaluate", flow_run_name=run_name(), log_prints=False)
def evaluate(
    workspace: str = ".",
    recipe: RecipeName = "",
    arm: ArmName = "",
    seed: Seed = None,
    iteration: Iteration = None,
    benchmarks: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    champion: bool = False,
) -> BenchmarkScores | State:
    """Measure the policy of an iteration, or MLflow's champion, and log it to MLflow.

    Args:
        workspace: Folder with params.yaml; experiments/<name> for a run with settings of its own.
        recipe: The recipe that was trained. Blank: the workspace's params.yaml.
        arm: The arm that was trained. Blank: the recipe's.
        seed: The seed that was trained. None: the recipe's.
        iteration: Whose policy; 0 is before training. None: the last.
        benchmarks: Names of the catalogue, NAME=PATH or paths. None: the held-out problems.
        settings: Changes to the evaluate section, such as {"samples": 8}.
        champion: The champion of the experiment's registered model instead, wherever it was trained.
    """

    def work() -> BenchmarkScores:
        if champion:
            policy = _champion(preview(Path(workspace), recipe=recipe, arm=arm, seed=seed)[0], Path(workspace))
        else:
            policy = _trained(trained_workspace(Path(workspace), recipe, arm, seed), iteration)
        return _evaluate(*policy, benchmarks or [], settings or {})

    return until_stopped(work)


def trained_workspace(start: Path, recipe: str, arm: str, seed: int | None) -> Path:
    """The workspace that `p2o run` with these choices trains in. Raises BadInput where it has not."""
    experiment, layout = preview(start, recipe=recipe, arm=arm, seed=seed)
    if not layout.params.exists():
        raise BadInput(
            f"{layout.workspace}: {experiment.experiment} was never trained. Mend: train it first, or name another "
            "recipe, arm, seed or workspace."
        )
    return layout.workspace


def _trained(root: Path, iteration: int | None) -> tuple[Experiment, Layout, int]:
    experiment = load_experiment(root / "params.yaml")
    at = experiment.iterations if iteration is None else iteration
    return experiment, Layout(root, experiment.experiment), at


def _champion(experiment: Experiment, workspace: Path) -> tuple[Experiment, Layout, int]:
    """Raises BadInput: there is no champion, its policy is not where it was, or MLflow is away."""
    name, uri = model_name(experiment), tracking_uri(workspace.resolve())
    with store_needed(uri, ", so its champion is not known. Mend: start it again."):
        version = aliased(MlflowClient(uri), name, CHAMPION)
    if version is None:
        raise BadInput(f"{name}: MLflow's registry has no champion of it. Mend: `p2o promote` makes one.")
    return whereabouts(version)


def _evaluate(
    experiment: Experiment, layout: Layout, at: int, benchmarks: list[str], settings: dict[str, Any]
) -> BenchmarkScores:
    check_project(experiment.tracking.project, layout.workspace)
    section = evaluation_settings(experiment.evaluate, settings)
    scores = benchmark_task(experiment, layout, at, benchmarks, section)
    delivery = Tracker(experiment, layout).log_evaluation(at, scores)
    if not delivery.ok:
        get_run_logger().warning("%s", delivery)
        console.print(f"[yellow]{delivery}. Mend: the same command again logs it; nothing is measured twice.[/]")
    rows = benchmark_rows(scores)
    description = f"Benchmarks after iteration {at} of {experiment.experiment}"
    publish_table(f"{experiment.experiment}-benchmarks-{at}", rows, description)
    console.print(_table(rows, f"{experiment.experiment} after iteration {at}, prompt {section.prompt}"))
    return scores


def benchmark_rows(scores: BenchmarkScores) -> list[dict[str, Any]]:
    """A row a benchmark, and their unweighted mean (the paper's Avg.)."""
    samples = scores.settings.samples
    rows: list[dict[str, Any]] = []
    for name, accuracy in scores.accuracy.items():
        passes = {f"pass@{k}": by_name[name] for k, by_name in scores.pass_at.items() if k != "1"}
        lengths = scores.lengths[name]
        rows.append(
            {"benchmark": name, "problems": scores.problems[name], f"avg@{samples}": accuracy}
            | passes
            | {f"maj@{samples}": scores.maj_at[name], "tokens": lengths.mean, "truncated": lengths.truncated}
        )
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key not in ("benchmark", "problems")}
    return [*rows, {"benchmark": "mean", "problems": sum(row["problems"] for row in rows)} | mean]


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if name == "tokens" else f"{value:.3f}"
