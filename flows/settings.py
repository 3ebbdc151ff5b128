"""Environment of the orchestrator, set before Prefect is imported. What the user has set is left alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from p2o_core.schemas import BadInput
from tasks.layout import home

PREFECT_PORT = 4200
MLFLOW_PORT = 5000


def prepare_environment(workspace: Path) -> None:
    """Telemetry off, Prefect's database beside MLflow's, and patience with the ephemeral server."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home(workspace) / ".prefect"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home(workspace) / ".prefect" / "memo_store.toml"),
        # without a server of its own the first flow starts one, measured at 19 s; the default limit is 20 s
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # a server that is away or hangs must not hold training: one short attempt an iteration (tasks/delivery.py).
        # No retries inside a request: "create run" sent twice makes two, while our next attempt asks first
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "DVC_NO_ANALYTICS": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_no_bad_input)


def _no_bad_input(record: logging.LogRecord) -> bool:
    """Bad input ends with its own message (``flows.cli.main``); Prefect's tracebacks before it would bury it."""
    raised = record.exc_info[1] if record.exc_info else None
    return not isinstance(raised, BadInput) and "BadInput" not in record.getMessage()
