"""The console: ``p2o run``, ``p2o stage``, ``p2o table``, ``p2o ui``. Thin; imports happen inside the commands."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from flows.settings import MLFLOW_PORT, PREFECT_PORT, PrefectAway, prepare_environment
from p2o_core.schemas import BadInput
from tasks.health import TrainingStopped

app = typer.Typer(
    help="P²O Lab: joint policy and prompt optimisation.", no_args_is_help=True, pretty_exceptions_enable=False
)

Workspace = Annotated[Path, typer.Option(help="Folder with params.yaml and dvc.yaml.")]
Recipe = Annotated[str | None, typer.Option(help="A name in recipes/, or a file like params.yaml.")]
ArmName = Annotated[str | None, typer.Option(help="p2o or grpo (recipes/arms.yaml).")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="rollout.samples=4; repeatable.")]


@app.command()
def run(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all training randomness.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Stop after this many.")] = None,
    set_: Settings = None,
    run_cache: Annotated[bool, typer.Option(help="Let DVC restore what was computed before.")] = True,
    wait: Annotated[bool, typer.Option(help="For another run in the same workspace to end.")] = False,
) -> None:
    """Train. Another arm, seed or setting than params.yaml's gets a workspace of its own under experiments/."""
    prepare_environment(workspace)
    from flows.workspace import open_workspace
    from tasks.experiment import load_experiment
    from tasks.layout import Layout

    root = open_workspace(
        workspace, recipe=recipe, arm=arm, seed=seed, iterations=iterations, overrides=parse_settings(set_ or [])
    )
    experiment = load_experiment(root / "params.yaml")
    from prefect.exceptions import CancelledRun

    from flows.display import console, print_iterations
    from flows.neighbours import prefect_needed
    from flows.orphans import end_orphans
    from flows.train import train  # Prefect takes seconds to import: bad input is refused before

    end_orphans()

    with prefect_needed():
        try:
            train(str(root), iterations, run_cache, wait)
        except CancelledRun as error:
            raise TrainingStopped(f"{root}: {error}") from None
    print_iterations(Layout(root, experiment.experiment), experiment.last_iteration)
    console.print(
        f"Workspace {root}. Pages: `p2o ui` serves MLflow on http://127.0.0.1:{MLFLOW_PORT} (experiment "
        f"{experiment.tracking.project!r}) and Prefect on http://127.0.0.1:{PREFECT_PORT} until you press Ctrl-C. "
        "Numbers: `dvc metrics show`, `dvc plots show`."
    )


@app.command()
def doctor(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    set_: Settings = None,
    dry_run: Annotated[bool, typer.Option(help="Run one iteration with a tiny random policy instead.")] = False,
) -> None:
    """Can this machine run the experiment? Packages, memory, disk, GPU, endpoints and data; nothing is started."""
    prepare_environment(workspace)
    from flows.preflight import print_dry_run, print_examination
    from flows.workspace import preview

    experiment, layout = preview(workspace, recipe=recipe, arm=arm, overrides=parse_settings(set_ or []))
    if dry_run:
        print_dry_run(experiment)
    elif not print_examination(experiment, layout, workspace / "data" / "sources"):
        raise SystemExit(1)


@app.command()
def plan(
    workspace: Workspace = Path("."),
    recipe: Recipe = None,
    arm: ArmName = None,
    set_: Settings = None,
    machine: Annotated[str, typer.Option(help="A name in recipes/machines.yaml, or 'here' to measure.")] = "here",
    mean_tokens: Annotated[float | None, typer.Option(help="Tokens a completion; measured 'here', else half.")] = None,
    hard_share: Annotated[float, typer.Option(help="Share of the problems that get a template.")] = 0.3,
    signal_share: Annotated[float, typer.Option(help="Share of the groups with a signal.")] = 0.6,
) -> None:
    """Tokens, passes, memory and hours of an experiment, before it is started."""
    prepare_environment(workspace)
    from flows.preflight import print_plan
    from flows.workspace import preview

    experiment, layout = preview(workspace, recipe=recipe, arm=arm, overrides=parse_settings(set_ or []))
    print_plan(experiment, layout, machine, tokens=mean_tokens, hard=hard_share, signal=signal_share)


@app.command()
def evaluate(
    iteration: Annotated[int | None, typer.Option("--iteration", "-i", help="The last by default; 0: base.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Name of the catalogue, NAME=PATH or PATH; repeatable.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Of evaluate: samples=8; repeatable.")] = None,
    workspace: Workspace = Path("."),
) -> None:
    """Measure a trained policy on benchmarks (the held-out problems by default): table, Prefect artefact, MLflow."""
    prepare_environment(workspace)
    from flows.evaluate import evaluate as run_evaluation
    from flows.neighbours import prefect_needed

    with prefect_needed():
        run_evaluation(str(workspace), iteration, benchmark, parse_settings(set_ or []))


@app.command()
def stage(
    name: Annotated[
        str, typer.Argument(help="prepare, init, rollout, verify, mine, evolve, distill, evaluate or report.")
    ],
    iteration: Annotated[int, typer.Option("--iteration", "-i", help="Iteration, from 1; 0 is before training.")] = 0,
    workspace: Workspace = Path("."),
) -> None:
    """Run one stage as dvc.yaml does."""
    prepare_environment(workspace)
    from tasks.experiment import load_experiment
    from tasks.layout import Layout
    from tasks.lock import WORKSPACE_LOCK, alone, command
    from tasks.registry import STAGES
    from tasks.runner import run_stage
    from tasks.runtime import Runtime

    if name not in STAGES:
        raise BadInput(f"stage: no stage {name!r}. Mend: one of {', '.join(STAGES)}.")
    root = workspace.resolve()
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    with alone(root / WORKSPACE_LOCK, command()), Runtime() as runtime:
        took = run_stage(STAGES[name], experiment, layout, iteration, runtime)
    if name in ("evaluate", "report"):
        from flows.track import say
        from tasks.tracking import Tracker

        say(Tracker(experiment, layout).log_finished(), root)
    typer.echo(f"{name} of iteration {iteration}: {took}")


@app.command()
def compare(
    recipe: Annotated[str, typer.Option(help="Entry of recipes/comparisons.yaml.")] = "microworld",
    seeds: Annotated[int | None, typer.Option(help="Seeds an arm.")] = None,
    quick: Annotated[bool, typer.Option(help="The entry's quick variant: fewer arms, seeds and tokens.")] = False,
    iterations: Annotated[int | None, typer.Option(help="Stop at so many iterations, not at equal tokens.")] = None,
    jobs: Annotated[int, typer.Option(help="Arms side by side; one core each.")] = max(1, os.cpu_count() or 1),
    workspace: Workspace = Path("."),
) -> None:
    """Run arms × seeds of a recipe at equal generated tokens, and report. Start it again to go on after a kill."""
    prepare_environment(workspace)
    from flows.comparing import open_comparison

    root = open_comparison(workspace, recipe, quick=quick, seeds=seeds, iterations=iterations)
    from flows.compare import compare as run_comparison
    from flows.neighbours import prefect_needed

    with prefect_needed():
        run_comparison(root, jobs)


@app.command()
def arm(
    name: Annotated[str, typer.Argument(help="An arm of the comparison, or 'base' for its problems and base policy.")],
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    world: Annotated[str, typer.Option(help="A world of the sweep; blank for the recipe's own.")] = "",
    workspace: Workspace = Path("."),
) -> None:
    """Run one arm and seed of the comparison in this workspace, as its dvc.yaml does."""
    prepare_environment(workspace)
    from tasks.comparison import Arm, run_named

    for line in run_named(workspace.resolve(), Arm(name, seed, world)):
        typer.echo(line)


@app.command()
def track(workspace: Workspace = Path(".")) -> None:
    """Deliver to MLflow what it lacks: iterations or runs of a comparison that ended while it was away."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nothing waits here, so a slow server may take its time
    prepare_environment(workspace)
    from flows.track import track as deliver

    if not deliver(workspace.resolve()):
        raise SystemExit(1)


@app.command()
def report(workspace: Workspace = Path(".")) -> None:
    """Write the report of a comparison: report.html, report.md and claims.json."""
    prepare_environment(workspace)
    from tasks.evidence.page import write_report

    typer.echo(write_report(workspace.resolve()))


@app.command()
def table(workspace: Workspace = Path(".")) -> None:
    """Print the table of iterations of a workspace."""
    from flows.display import print_iterations
    from tasks.experiment import load_experiment
    from tasks.layout import Layout

    experiment = load_experiment(workspace / "params.yaml")
    print_iterations(Layout(workspace.resolve(), experiment.experiment), experiment.last_iteration)


@app.command()
def params(
    comparison: Annotated[bool, typer.Option(help="Of recipes/comparisons.yaml instead.")] = False,
) -> None:
    """Print every parameter of params.yaml with its default and meaning, as Markdown."""
    from tasks.comparison import Comparison
    from tasks.experiment import Experiment
    from tasks.parameters import markdown_table

    typer.echo(markdown_table(Comparison if comparison else Experiment), nl=False)


@app.command()
def serve(
    workspace: Workspace = Path("."),
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8001,
    max_model_len: Annotated[int, typer.Option(help="Tokens of prompt and completion together at most.")] = 4096,
) -> None:
    """Serve the workspace's base policy with vLLM for the engine `server`, on loopback until Ctrl-C."""
    prepare_environment(workspace)
    from p2o_core.engines.serving import server_command
    from tasks.experiment import load_experiment
    from tasks.layout import Layout

    experiment = load_experiment(workspace / "params.yaml")
    base = Layout(workspace.resolve(), experiment.experiment).base / "policy"
    if not base.exists():
        raise BadInput(f"{base}: no base policy. Mend: `p2o stage prepare` makes it.")
    command, environment = server_command(base, experiment.policy, port=port, max_model_len=max_model_len)
    os.environ.update(environment)
    os.execv(command[0], command)


@app.command()
def deploy(
    workspace: Workspace = Path("."),
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = PREFECT_PORT,
) -> None:
    """Serve the deployments `train` and `nightly` to the Prefect server of `p2o ui`, until Ctrl-C."""
    os.environ.setdefault("PREFECT_API_URL", f"http://127.0.0.1:{prefect_port}/api")
    prepare_environment(workspace)
    from flows.deployments import serve_deployments

    serve_deployments(workspace)


@app.command()
def ui(
    workspace: Workspace = Path("."),
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow pages.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect pages.")] = PREFECT_PORT,
) -> None:
    """Serve the Prefect and MLflow pages on loopback until Ctrl-C."""
    prepare_environment(workspace)
    from flows.pages import serve

    serve(workspace, mlflow_port, prefect_port)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``["rollout.samples=4"]`` to a dictionary; values are read as YAML."""
    settings = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise BadInput(f"--set {pair}: no '='. Mend: --set section.name=value.")
        settings[name] = yaml.safe_load(value)
    return settings


def main() -> None:
    """Console entry: bad input ends with its message and status 2, a server gone with status 1; no traceback."""
    # a console script started from a virtual environment that was not activated still finds its tools (dvc, mlflow)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # as Ctrl-C: engine and verifier are closed, and Prefect's exit handler ends the server it started for the run
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except BadInput as error:
        typer.secho(str(error), fg="red", err=True)
        raise SystemExit(2) from None
    except PrefectAway as error:
        typer.secho(str(error), fg="red", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # Prefect's exit handler would try every event it could not send for 7 s: hours after a long run
    except TrainingStopped as error:
        typer.secho(str(error), fg="red", err=True)
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
