"""What a schedule runs at night: a recipe trained, and the report on it. Scheduled by prefect.yaml."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from prefect import State, flow, get_run_logger

from flows.lifecycle.processes import Processes
from flows.lifecycle.stopping import until_stopped
from flows.parameters import ArmName, Count, RecipeName, Seed, Settings, run_name
from flows.train import train_workspace
from flows.versioning.workspace import open_workspace
from tasks.running.lock import WORKSPACE_LOCK, command, file_lock

REPORT_LIMIT_S = 900.0


@flow(name="nightly", flow_run_name=run_name("night · "), log_prints=False)
def nightly(
    workspace: str = ".",
    recipe: RecipeName = "microworld",
    arm: ArmName = "",
    seed: Seed = None,
    iterations: Count = None,
    settings: Settings = None,
) -> State | None:
    """Train a recipe and write the report on it.

    Args:
        workspace: The clone, or a folder in it.
        recipe: What to train: a file of recipes/.
        arm: Set of parameters on top of it (recipes/arms.yaml). Blank: the recipe's.
        seed: Seed of all training randomness. None: the day's number, so that each night trains another one.
        iterations: Stop after this many. None: all.
        settings: Further parameters by dotted name, such as {"rollout.samples": 4}.
    """

    def work() -> None:
        root = open_workspace(
            Path(workspace),
            recipe=recipe,
            arm=arm,
            seed=date.today().toordinal() if seed is None else seed,
            iterations=iterations,
            overrides=settings,
            wait=True,
        )
        with file_lock(root / WORKSPACE_LOCK, command(), wait=True):
            train_workspace(root, iterations, run_cache=True)
        _report(root)

    return until_stopped(work)


def _report(root: Path) -> None:
    """`p2o report`, in a process of its own. A night that trained is no failure for want of its report."""
    log, written = get_run_logger(), root / "report.log"
    with Processes() as processes:
        status = processes.run(
            [sys.executable, "-m", "flows.console", "report", "--workspace", str(root)], written, limit_s=REPORT_LIMIT_S
        )
    said = written.read_text(errors="replace").strip()[-500:]
    if status:
        log.warning("no report, status %d: %s", status, said)
    else:
        log.info("report: %s", said)
