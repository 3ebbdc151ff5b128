"""The flow that measures a trained policy on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from rich.table import Table

from flows.display import console, publish_table
from flows.lifecycle.cancellation import until_cancelled
from flows.lifecycle.secrets import prefect_secret
from flows.tracking.parents import check_project
from flows.tracking.tracker import Tracker
from p2o_core.config import EvaluateConfig
from tasks.benchmarks import benchmark_source, evaluate_benchmarks, evaluation_settings
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.runtime import Runtime


@task(task_run_name="benchmarks-{iteration}", cache_policy=NO_CACHE, persist_result=False)
def benchmark_task(
    experiment: Experiment, layout: Layout, iteration: int, benchmarks: list[str], settings: EvaluateConfig
) -> dict[str, Any]:
    """All benchmarks with one warm engine."""
    sources = [benchmark_source(text) for text in benchmarks]
    with Runtime(prefect_secret) as runtime:
        return evaluate_benchmarks(experiment, layout, iteration, sources, settings, runtime)


@flow(name="evaluate", log_prints=False)
def evaluate(
    workspace: str = ".",
    iteration: int | None = None,
    benchmarks: list[str] | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any] | State:
    """Measure the policy of an iteration (the last by default) and log it to MLflow.

    Args:
        workspace: folder with params.yaml.
        benchmarks: names of the catalogue, ``name=path`` or paths; none: the held-out problems.
        settings: changes to the ``evaluate`` section.
    """
    return until_cancelled(lambda: _evaluate(Path(workspace).resolve(), iteration, benchmarks or [], settings or {}))


def _evaluate(root: Path, iteration: int | None, benchmarks: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    check_project(experiment.tracking.project, root)
    at = experiment.iterations if iteration is None else iteration
    section = evaluation_settings(experiment.evaluate, settings)
    metrics = benchmark_task(experiment, layout, at, benchmarks, section)
    delivery = Tracker(experiment, layout).log_evaluation(at, metrics)
    if not delivery.ok:
        get_run_logger().warning("%s", delivery)
        console.print(f"[yellow]{delivery}. Mend: the same command again logs it; nothing is measured twice.[/]")
    rows = benchmark_rows(metrics)
    description = f"Benchmarks after iteration {at} of {experiment.experiment}"
    publish_table(f"{experiment.experiment}-benchmarks-{at}", rows, description)
    console.print(_table(rows, f"{experiment.experiment} after iteration {at}, prompt {section.prompt}"))
    return metrics


def benchmark_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a benchmark, and their unweighted mean (the paper's Avg.)."""
    samples = metrics["settings"]["samples"]
    rows = []
    for name, accuracy in metrics["accuracy"].items():
        passes = {f"pass@{k}": by_name[name] for k, by_name in metrics["pass_at"].items() if k != "1"}
        lengths = metrics["lengths"][name]
        rows.append(
            {"benchmark": name, "problems": metrics["problems"][name], f"avg@{samples}": accuracy}
            | passes
            | {f"maj@{samples}": metrics["maj_at"][name], "tokens": lengths["mean"], "truncated": lengths["truncated"]}
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
