"""Environment of the orchestrator, set before Prefect is imported. What the user has set is left alone. Telemetry is
off already: ``flows/__init__.py``."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

from p2o_core.schemas import BadInput
from tasks.running.layout import home
from tasks.running.stage import TrainingStopped

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def prepare_environment(workspace: Path) -> None:
    """Prefect's database beside MLflow's, and patience with the ephemeral server."""
    defaults = {
        "PREFECT_HOME": str(home(workspace) / ".prefect"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home(workspace) / ".prefect" / "memo_store.toml"),
        # without a server of its own the first flow starts one, measured at 19 s; the default limit is 20 s
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # a request to a server that is gone is tried for 2 + 4 + 8 + 16 = 30 s; one restarted is up after 7 s
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        # a run's page has its story; the console has it from flows/display.py
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        # of a run's heartbeats, the least that Prefect allows: a run that was killed is found so much sooner
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # a server that is away or hangs must not hold training: one short attempt an iteration
        # (flows/tracking/delivery.py). No retries inside a request: "create run" sent twice makes two, while our next
        # attempt asks first
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    exempt_loopback()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_has_no_message_of_its_own)
    # one line an event otherwise while a Prefect server is away
    for name in ("prefect.events.clients", "prefect._internal.concurrency"):
        logging.getLogger(name).addFilter(_Once())


def exempt_loopback() -> None:
    """A proxy cannot reach this machine's own servers: Prefect's, MLflow's, vLLM's. What the user exempts stays.

    Raises:
        BadInput: a SOCKS proxy without the package that httpx needs for it; Prefect could not start.
    """
    exempt = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = list(dict.fromkeys(host.strip() for host in exempt.split(",") if host.strip()))
    # clients take the asterisk for "no proxy at all" only where it stands alone
    hosts = ["*"] if "*" in hosts else [*hosts, *(host for host in LOOPBACK if host not in hosts)]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        address = os.environ.get(name.lower()) or os.environ.get(name) or ""
        if address.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise BadInput(
                f"{name} names a SOCKS proxy, and httpx, which Prefect's client uses, lacks the package socksio. "
                "Mend: `pip install socksio`, or unset it."
            )


class PrefectAway(Exception):
    """Prefect's server went away and the run stopped. The message says how to go on."""


def _has_no_message_of_its_own(record: logging.LogRecord) -> bool:
    """Bad input, a run that stopped itself and a server that is away end with their own message (``flows.console``);
    Prefect's tracebacks before it would bury it."""
    raised = record.exc_info[1] if record.exc_info else None
    said = record.getMessage()
    transport = [sys.modules["httpx"].TransportError] if "httpx" in sys.modules else []
    ends = isinstance(raised, (BadInput, TrainingStopped, *transport))
    return not ends and not any(name in said for name in ("BadInput", "TrainingStopped"))


class _Once(logging.Filter):
    """Lets the first warning through, without the event that could not be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        first, self.said = not self.said, True
        record.msg, record.args = record.getMessage().split("Event(")[0][:150], ()
        return first
