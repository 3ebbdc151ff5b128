"""``p2o``, or ``python -m flows.console``: every command, and how each kind of failure ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import typer

from flows.console import planning, results, services, training
from flows.lifecycle.environment import PrefectAway
from p2o_core.schemas import BadInput
from tasks.running.stage import TrainingStopped

app = typer.Typer(
    help="P²O Lab: joint policy and prompt optimisation.", no_args_is_help=True, pretty_exceptions_enable=False
)
for group in (training, planning, results, services):
    app.add_typer(group.commands)


def main() -> None:
    """Console entry: bad input ends with its message and status 2, a server gone with status 1; no traceback."""
    # a console script started from a virtual environment that was not activated still finds its tools (dvc, mlflow)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # as Ctrl-C: engine and verifier are closed, and Prefect's exit handler ends the server it started for the run
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell script's `p2o run &` starts with Ctrl-C ignored
        signal.signal(number, signal.default_int_handler)
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
