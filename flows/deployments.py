"""Deployments that this machine serves: training on demand, and the nightly checks."""

from __future__ import annotations

from pathlib import Path

from prefect import serve
from prefect.deployments.runner import EntrypointType

from flows.nightly import nightly
from flows.train import train

NIGHTLY_CRON = "0 3 * * *"


def serve_deployments(workspace: Path) -> None:
    """Serve until Ctrl-C. A run that is cancelled in Prefect's page gets SIGTERM and closes engine and verifier."""
    serve(
        train.to_deployment(  # type: ignore[arg-type]  # synchronous outside an event loop
            "train",
            parameters={"workspace": str(workspace.resolve()), "wait": True},
            entrypoint_type=EntrypointType.MODULE_PATH,
            description="Train the workspace's experiment, or go on with it.",
        ),
        nightly.to_deployment(  # type: ignore[arg-type]
            "nightly", cron=NIGHTLY_CRON, entrypoint_type=EntrypointType.MODULE_PATH
        ),
        print_starting_message=False,
    )
