"""The commands that serve on loopback: Prefect, its worker and MLflow until `p2o down`, a policy until Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.console.options import Workspace
from flows.lifecycle.environment import MLFLOW_PORT, PREFECT_PORT, prepare_environment
from p2o_core.schemas import BadInput

commands = typer.Typer()
PANEL = "On loopback"


@commands.command(rich_help_panel=PANEL)
def up(
    workspace: Workspace = Path("."),
    mlflow_port: Annotated[
        int | None, typer.Option(help=f"Port of the MLflow pages; {MLFLOW_PORT} by default.")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(help=f"Port of the Prefect pages; {PREFECT_PORT} by default.")
    ] = None,
) -> None:
    """Start Prefect's server, a worker and MLflow, and register prefect.yaml's deployments. What runs stays."""
    prepare_environment(workspace)
    from flows.services.control import ServiceFailed
    from flows.services.control import up as start_all

    try:
        start_all(workspace, prefect_port, mlflow_port)
    except ServiceFailed as error:
        typer.secho(str(error), fg="red", err=True)
        raise SystemExit(1) from None


@commands.command(rich_help_panel=PANEL)
def down(workspace: Workspace = Path(".")) -> None:
    """End what `p2o up` started. A run in progress ends too; the same choices go on where it was."""
    prepare_environment(workspace)
    from flows.services.control import down as end_all

    ended = end_all(workspace)
    typer.echo(f"Ended: {', '.join(ended)}" if ended else "Nothing was running.")


@commands.command(rich_help_panel=PANEL)
def status(workspace: Workspace = Path(".")) -> None:
    """Say what runs, and where: services and runs. Exit status 1 when a service of `p2o up` does not run."""
    prepare_environment(workspace)
    from flows.services.control import ours
    from flows.services.state import status as print_status

    if not print_status(ours(workspace)):
        raise SystemExit(1)


@commands.command(rich_help_panel=PANEL)
def serve(
    workspace: Workspace = Path("."),
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8001,
    max_model_len: Annotated[int, typer.Option(help="Tokens of prompt and completion together at most.")] = 4096,
) -> None:
    """Serve the workspace's base policy with vLLM for the engine `server`, on loopback until Ctrl-C."""
    prepare_environment(workspace)
    from flows.services.commands import check_port
    from p2o_core.engines.serving import server_command
    from tasks.parameters.experiment import load_experiment
    from tasks.running.layout import Layout

    check_port("--port", port)
    experiment = load_experiment(workspace / "params.yaml")
    base = Layout(workspace.resolve(), experiment.experiment).base / "policy"
    if not base.exists():
        raise BadInput(f"{base}: no base policy. Mend: `p2o stage prepare` makes it.")
    command, environment = server_command(base, experiment.policy, port=port, max_model_len=max_model_len)
    os.environ.update(environment)
    os.execv(command[0], command)
