"""Environment of the orchestrator, set before Prefect is imported. What the user has set is left alone."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.layout import home

PREFECT_PORT = 4200
MLFLOW_PORT = 5000


def prepare_environment(workspace: Path) -> None:
    """Telemetry off, Prefect's database beside MLflow's, and patience with the ephemeral server."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home(workspace) / ".prefect"),
        # without a server of its own the first flow starts one, measured at 19 s; the default limit is 20 s
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
