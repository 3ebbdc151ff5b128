"""What is too long for every commit: acceptance, the whole hostile corpus, a hundred kills."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.lifecycle.processes import Processes
from flows.lifecycle.stopping import until_stopped

REPOSITORY = Path(__file__).parents[1]
CHECKS = {
    "acceptance": ["pytest", "-m", "slow"],
    "hostile": ["stress.hostile"],
    "chaos": ["stress.chaos", "--kills", "100"],
}
"""Name to module and options."""
Check = Literal["acceptance", "hostile", "chaos"]
SHOWN = 4_000
"""Characters of a check's output that its artefact keeps."""
LIMIT_S = 2 * 3600.0
"""Seconds a check may take; one that hangs is ended and has failed."""


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def check(name: str, processes: Processes) -> int:
    """Run one check in a process of its own; its end is shown as an artefact. Returns its exit status."""
    command = [sys.executable, "-m", *CHECKS[name]]
    with NamedTemporaryFile("r", prefix=f"check-{name}-", suffix=".log", errors="replace") as log:
        status = processes.run(command, Path(log.name), cwd=REPOSITORY, limit_s=LIMIT_S)
        output = log.read()[-SHOWN:].replace("```", "'''")
    create_markdown_artifact(
        key=f"check-{name}",
        markdown=f"`{' '.join(command[1:])}` ended with status {status}\n\n```\n{output}\n```",
    )
    return status


@flow(name="checks", log_prints=False)
def checks(names: list[Check] | None = None) -> State | None:
    """Checks of this clone, one after the other; fails when any of them did.

    Args:
        names: Which of them. None: all.
    """
    return until_stopped(lambda: _run(list(names or CHECKS)))


def _run(checks: list[str]) -> None:
    log = get_run_logger()
    with Processes() as processes:
        failed = [name for name in checks if check(name, processes)]
    if failed:
        log.error("failed: %s", ", ".join(failed))
        raise RuntimeError(f"checks failed: {', '.join(failed)}; their artefacts check-… say why")
