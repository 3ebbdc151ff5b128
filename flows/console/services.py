"""The commands that serve on loopback until Ctrl-C: pages, deployments, a policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.console.options import Workspace
from flows.lifecycle.environment import MLFLOW_PORT, PREFECT_PORT, prepare_environment
from p2o_core.schemas import BadInput

commands = typer.Typer()
PANEL = "On loopback until Ctrl-C"


@commands.command(rich_help_panel=PANEL)
def ui(
    workspace: Workspace = Path("."),
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow pages.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect pages.")] = PREFECT_PORT,
) -> None:
    """Serve the Prefect and MLflow pages on loopback until Ctrl-C."""
    prepare_environment(workspace)
    from flows.pages import serve

    serve(workspace, mlflow_port, prefect_port)


@commands.command(rich_help_panel=PANEL)
def deploy(
    workspace: Workspace = Path("."),
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = PREFECT_PORT,
) -> None:
    """Serve the deployments `train` and `nightly` to the Prefect server of `p2o ui`, until Ctrl-C."""
    os.environ.setdefault("PREFECT_API_URL", f"http://127.0.0.1:{prefect_port}/api")
    prepare_environment(workspace)
    from tasks.parameters.experiment import load_experiment

    load_experiment(workspace / "params.yaml")  # refused before Prefect makes its database
    from flows.deployments import serve_deployments
    from flows.lifecycle.endings import flow_ends

    with flow_ends():
        serve_deployments(workspace)


@commands.command(rich_help_panel=PANEL)
def serve(
    workspace: Workspace = Path("."),
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8001,
    max_model_len: Annotated[int, typer.Option(help="Tokens of prompt and completion together at most.")] = 4096,
) -> None:
    """Serve the workspace's base policy with vLLM for the engine `server`, on loopback until Ctrl-C."""
    prepare_environment(workspace)
    from flows.pages import check_port
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
