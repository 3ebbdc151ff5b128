"""The commands for what was trained: measured again, shown, reported, delivered, and cleared away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console.options import Workspace, parse_settings
from flows.lifecycle.environment import prepare_environment
from flows.lifecycle.server import start_server
from tasks.running.imports import importing

commands = typer.Typer()
PANEL = "Results"


@commands.command(rich_help_panel=PANEL)
def evaluate(
    iteration: Annotated[int | None, typer.Option("--iteration", "-i", help="The last by default; 0: base.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Name of the catalogue, NAME=PATH or PATH; repeatable.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Of evaluate: samples=8; repeatable.")] = None,
    champion: Annotated[bool, typer.Option("--champion", help="MLflow's champion, wherever it was trained.")] = False,
    workspace: Workspace = Path("."),
) -> None:
    """Measure a trained policy on benchmarks (the held-out problems by default): table, Prefect artefact, MLflow."""
    settings = _settings_once_started(workspace, set_)
    with importing():
        from flows.evaluate import evaluate as run_evaluation
        from flows.lifecycle.endings import flow_ends
    with flow_ends():
        run_evaluation(str(workspace), iteration=iteration, benchmarks=benchmark, settings=settings, champion=champion)


@commands.command(rich_help_panel=PANEL)
def promote(
    iteration: Annotated[int | None, typer.Option("--iteration", "-i", help="The last by default.")] = None,
    candidate: Annotated[bool, typer.Option("--candidate", help="Register it as candidate, compare nothing.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Of evaluate: samples=8; repeatable.")] = None,
    workspace: Workspace = Path("."),
) -> None:
    """Compare a trained policy with MLflow's champion on the same held-out problems; only a better one becomes it."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nothing waits here
    settings = _settings_once_started(workspace, set_)
    with importing():
        from flows.lifecycle.endings import flow_ends
        from flows.promote import promote as run_promotion
    with flow_ends():
        if not run_promotion(str(workspace), iteration, candidate, settings):
            raise SystemExit(1)


def _settings_once_started(workspace: Path, set_: list[str] | None) -> dict[str, Any]:
    """The settings; Prefect's server runs then. Raises BadInput before Prefect makes its database."""
    prepare_environment(workspace)
    from tasks.parameters.experiment import load_experiment

    settings = parse_settings(set_ or [])
    load_experiment(workspace / "params.yaml")
    start_server()
    return settings


@commands.command(rich_help_panel=PANEL)
def table(workspace: Workspace = Path(".")) -> None:
    """Print the table of iterations of a workspace."""
    from flows.display import print_iterations
    from tasks.parameters.experiment import load_experiment
    from tasks.running.layout import Layout

    experiment = load_experiment(workspace / "params.yaml")
    print_iterations(Layout(workspace.resolve(), experiment.experiment), experiment.iterations)


@commands.command(rich_help_panel=PANEL)
def report(workspace: Workspace = Path(".")) -> None:
    """Write the report of what the workspace holds: of its run, report.html in data/reports/; of a comparison,
    report.html, report.md and claims.json in report/."""
    prepare_environment(workspace)
    from flows.comparison.entries import FILE as COMPARISON_FILE

    root = workspace.resolve()
    if (root / COMPARISON_FILE).exists():
        from flows.comparison.page import write_report

        typer.echo(write_report(root))
    else:
        from flows.reporting.page import write_run_report

        typer.echo(write_run_report(root))


@commands.command(rich_help_panel=PANEL)
def track(workspace: Workspace = Path(".")) -> None:
    """Deliver to MLflow what it lacks: iterations or runs of a comparison that ended while it was away."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nothing waits here, so a slow server may take its time
    prepare_environment(workspace)
    if not (workspace / "comparison.yaml").exists():
        from tasks.parameters.experiment import load_experiment

        load_experiment(workspace / "params.yaml")  # refused before Prefect makes its folder
    from flows.publishing import track as deliver

    if not deliver(workspace.resolve()):
        raise SystemExit(1)


@commands.command(rich_help_panel=PANEL)
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Do it. Otherwise it is counted only.")] = False,
    workspace: Workspace = Path("."),
) -> None:
    """Count, or delete, what DVC's cache has and no workspace, branch, tag, experiment or registered policy names."""
    prepare_environment(workspace)
    from rich.filesize import decimal

    from flows.garbage import collect_garbage

    found = collect_garbage(workspace, delete=delete)
    typer.echo(f"{found.kept} objects, {decimal(found.kept_bytes)}, are named and stay.")
    what = "deleted" if delete else "would be deleted by `p2o gc --delete`"
    typer.echo(f"{found.unnamed} objects, {decimal(found.unnamed_bytes)}, are named by nothing: {what}.")
