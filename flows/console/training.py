"""The commands that train: one run, one stage, or a comparison's arms × seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console.options import ArmName, Recipe, Settings, Wait, Workspace, parse_settings
from flows.lifecycle.environment import MLFLOW_PORT, PREFECT_PORT, prepare_environment
from flows.lifecycle.server import start_server
from p2o_core.schemas import BadInput
from tasks.running.imports import importing

commands = typer.Typer()
PANEL = "Train"


@commands.command(rich_help_panel=PANEL)
def run(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all training randomness.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Stop after this many.")] = None,
    set_: Settings = None,
    run_cache: Annotated[bool, typer.Option(help="Let DVC restore what was computed before.")] = True,
    wait: Wait = False,
) -> None:
    """Train. Another arm, seed or setting than params.yaml's gets a workspace of its own under experiments/."""
    prepare_environment(workspace)
    from flows.versioning.workspace import open_workspace
    from tasks.parameters.experiment import load_experiment
    from tasks.running.layout import Layout

    overrides = parse_settings(set_ or [])
    root = open_workspace(
        workspace, recipe=recipe, arm=arm, seed=seed, iterations=iterations, overrides=overrides, wait=wait
    )
    experiment = load_experiment(root / "params.yaml")
    start_server()
    with importing():  # Prefect takes seconds: bad input is refused before
        from flows.display import console, print_iterations
        from flows.lifecycle.endings import flow_ends
        from flows.train import train
    with flow_ends():
        train(str(root), iterations=iterations, run_cache=run_cache, wait=wait)
    print_iterations(Layout(root, experiment.experiment), experiment.iterations)
    console.print(
        f"Workspace {root}. Pages: `p2o up` serves MLflow on http://127.0.0.1:{MLFLOW_PORT} (experiment "
        f"{experiment.tracking.project!r}) and Prefect on http://127.0.0.1:{PREFECT_PORT} until `p2o down`. "
        "Numbers: `dvc metrics show`, `dvc plots show`. One page of all of it: `p2o report`."
    )


@commands.command(rich_help_panel=PANEL)
def stage(
    name: Annotated[
        str, typer.Argument(help="prepare, init, rollout, verify, mine, evolve, distill, evaluate or summary.")
    ],
    iteration: Annotated[int, typer.Option("--iteration", "-i", help="Iteration, from 1; 0 is before training.")] = 0,
    workspace: Workspace = Path("."),
    wait: Wait = False,
) -> None:
    """Run one stage as dvc.yaml does."""
    prepare_environment(workspace)
    from flows.lifecycle.secrets import prefect_secret
    from tasks.parameters.experiment import load_experiment
    from tasks.registry import STAGES, ends_iteration
    from tasks.running.layout import Layout
    from tasks.running.lock import WORKSPACE_LOCK, command, file_lock
    from tasks.running.runner import run_stage
    from tasks.running.runtime import Runtime

    if name not in STAGES:
        raise BadInput(f"stage: no stage {name!r}. Mend: one of {', '.join(STAGES)}.")
    root = workspace.resolve()
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    with file_lock(root / WORKSPACE_LOCK, command(), wait=wait), Runtime(prefect_secret) as runtime:
        took = run_stage(STAGES[name], experiment, layout, iteration, runtime)
        if name == "summary" or ends_iteration(STAGES[name], iteration):
            from flows.publishing import show_delivery
            from flows.tracking.tracker import Tracker

            show_delivery(Tracker(experiment, layout).log_finished(), root)
    typer.echo(f"{name} of iteration {iteration}: {took}")


@commands.command(rich_help_panel=PANEL)
def resolve(workspace: Workspace = Path(".")) -> None:
    """Write what DVC reads from params.yaml: data/params.json, all parameters with every default, and dvc.yaml, the
    stages for its number of iterations. Exit status 2 within `dvc repro` when that has read another dvc.yaml."""
    from flows.versioning.pipeline import write_pipeline
    from tasks.parameters.experiment import load_experiment
    from tasks.running.layout import Layout, temporary_of
    from tasks.running.runner import write_parameters

    root = workspace.resolve()
    experiment = load_experiment(root / "params.yaml")
    write_parameters(experiment, Layout(root, experiment.experiment))
    if write_pipeline(root, experiment.iterations) and "DVC_STAGE" in os.environ:
        clone = temporary_of(root)
        first = f"write iterations: {experiment.iterations} into params.yaml, `p2o resolve` in {clone}, then "
        raise BadInput(
            f"{root / 'dvc.yaml'}: it was not that of {experiment.iterations} iterations, as params.yaml wants them, "
            f"and is written anew; nothing was run. Mend: {first if clone else ''}the same command again."
        )


@commands.command(rich_help_panel=PANEL)
def pipeline(workspace: Workspace = Path(".")) -> None:
    """Print the dvc.yaml that `p2o run` and `p2o resolve` write."""
    from flows.versioning.pipeline import pipeline_text
    from tasks.parameters.experiment import load_experiment

    typer.echo(pipeline_text(workspace, load_experiment(workspace / "params.yaml").iterations), nl=False)


@commands.command(rich_help_panel=PANEL)
def compare(
    recipe: Annotated[str, typer.Option(help="Entry of recipes/comparisons.yaml.")] = "microworld",
    seeds: Annotated[int | None, typer.Option(help="Seeds an arm.")] = None,
    quick: Annotated[bool, typer.Option(help="The entry's quick variant: fewer arms, seeds and tokens.")] = False,
    iterations: Annotated[int | None, typer.Option(help="Stop at so many iterations, not at equal tokens.")] = None,
    jobs: Annotated[int, typer.Option(help="Arms side by side; one core each.")] = max(1, os.cpu_count() or 1),
    workspace: Workspace = Path("."),
    wait: Wait = False,
) -> None:
    """Run arms × seeds of a recipe at equal generated tokens, and report. Start it again to go on after a kill."""
    prepare_environment(workspace)
    from flows.comparison.workspace import open_comparison

    asked: dict[str, Any] = {"quick": quick, "seeds": seeds, "iterations": iterations, "wait": wait}
    open_comparison(workspace, recipe, **asked)  # bad input is refused before Prefect makes its database
    start_server()
    with importing():
        from flows.compare import compare as run_comparison
        from flows.lifecycle.endings import flow_ends
    with flow_ends():
        run_comparison(str(workspace), recipe=recipe, jobs=jobs, **asked)


@commands.command(rich_help_panel=PANEL)
def arm(
    name: Annotated[str, typer.Argument(help="An arm of the comparison, or 'base' for its problems and base policy.")],
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    world: Annotated[str, typer.Option(help="A world of the sweep; blank for the recipe's own.")] = "",
    base: Annotated[int, typer.Option(help="Which of the world's bases.")] = 0,
    workspace: Workspace = Path("."),
) -> None:
    """Run one arm and seed of the comparison in this workspace, as its dvc.yaml does."""
    prepare_environment(workspace)
    from flows.comparison.arms import Arm, run_named

    for line in run_named(workspace.resolve(), Arm(name, seed, world, base)):
        typer.echo(line)
