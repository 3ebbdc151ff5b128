"""The commands to ask before anything runs: can this machine do it, what will it cost, what can be set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console.options import ArmName, Recipe, Settings, Workspace, parse_settings
from flows.lifecycle.environment import prepare_environment

commands = typer.Typer()
PANEL = "Before anything runs"


@commands.command(rich_help_panel=PANEL)
def doctor(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    set_: Settings = None,
    dry_run: Annotated[bool, typer.Option(help="Run one iteration with a tiny random policy instead.")] = False,
) -> None:
    """Can this machine run the experiment? Packages, memory, disk, GPU, endpoints, data and the base policy's files;
    nothing is started. Exit status 1: the machine lacks something; 2: the base policy cannot be trained."""
    prepare_environment(workspace)
    from flows.preflight.display import print_dry_run, print_examination
    from flows.versioning.workspace import preview

    experiment, layout = preview(workspace, recipe=recipe, arm=arm, overrides=parse_settings(set_ or []))
    if dry_run:
        print_dry_run(experiment)
    elif status := print_examination(experiment, layout, workspace / "data" / "sources"):
        raise SystemExit(status)


@commands.command(rich_help_panel=PANEL)
def plan(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    set_: Settings = None,
    machine: Annotated[str, typer.Option(help="A name in recipes/machines.yaml, or 'here' to measure.")] = "here",
    mean_tokens: Annotated[float | None, typer.Option(help="Tokens a completion; measured 'here', else half.")] = None,
    hard_share: Annotated[float, typer.Option(help="Share of the problems that get a template.")] = 0.3,
    signal_share: Annotated[float, typer.Option(help="Share of the groups with a signal.")] = 0.6,
    gpus: Annotated[
        list[int] | None, typer.Option(min=1, help="Also on so many of the machine, engines and trainer; repeatable.")
    ] = None,
) -> None:
    """Tokens, passes, memory and hours of an experiment, before it is started."""
    prepare_environment(workspace)
    from flows.preflight.display import print_plan
    from flows.versioning.workspace import preview

    experiment, layout = preview(workspace, recipe=recipe, arm=arm, overrides=parse_settings(set_ or []))
    print_plan(experiment, layout, machine, tokens=mean_tokens, hard=hard_share, signal=signal_share, gpus=gpus or ())


@commands.command(rich_help_panel=PANEL)
def params(
    comparison: Annotated[bool, typer.Option(help="Of recipes/comparisons.yaml instead.")] = False,
) -> None:
    """Print every parameter of params.yaml with its default and meaning, as Markdown."""
    from flows.comparison.entries import Comparison
    from tasks.parameters.experiment import Experiment
    from tasks.parameters.table import markdown_table

    typer.echo(markdown_table(Comparison if comparison else Experiment), nl=False)
