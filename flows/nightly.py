"""What is too long for every commit: acceptance, the whole hostile corpus, a hundred kills. Scheduled by
``flows/deployments.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

REPOSITORY = Path(__file__).parents[1]
CHECKS = {
    "acceptance": ["pytest", "-m", "slow"],
    "hostile": ["benchmarks.hostile"],
    "chaos": ["benchmarks.chaos", "--kills", "100"],
}
"""Name to module and options."""
SHOWN = 4_000
"""Characters of a check's output that its artefact keeps."""


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def check(name: str) -> int:
    """Run one check in a process of its own; its end is shown as an artefact. Returns its exit status."""
    command = [sys.executable, "-m", *CHECKS[name]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    output = (done.stdout + done.stderr)[-SHOWN:].replace("```", "'''")
    create_markdown_artifact(
        key=f"nightly-{name}",
        markdown=f"`{' '.join(command[1:])}` ended with status {done.returncode}\n\n```\n{output}\n```",
    )
    return done.returncode


@flow(name="nightly", log_prints=False)
def nightly(checks: list[str] | None = None) -> None:
    """All checks, one after the other; fails when any of them did."""
    log = get_run_logger()
    failed = [name for name in checks or CHECKS if check(name)]
    if failed:
        log.error("failed: %s", ", ".join(failed))
        raise RuntimeError(f"nightly checks failed: {', '.join(failed)}; their artefacts nightly-… say why")
