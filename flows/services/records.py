"""Which services run: a file each, with the process's start time, since numbers of processes come back."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from p2o_core.schemas import write_json

LOOPBACK = "127.0.0.1"
PREFECT, MLFLOW, WORKER = "prefect", "mlflow", "worker"
NAMES = (PREFECT, MLFLOW, WORKER)
"""In the order in which they start."""
SAME_S = 1.0
"""Seconds by which two readings of one process's start time may differ."""


@dataclass(frozen=True)
class Service:
    """A service that was started; ``port`` is 0 for the worker, which listens nowhere."""

    name: str
    pid: int
    started: float
    port: int

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}" if self.port else ""

    @property
    def process(self) -> psutil.Process | None:
        """None where it has ended, or its number belongs to another process now."""
        return process_of(self.pid, self.started)


def process_of(pid: int, started: float) -> psutil.Process | None:
    """The process of this number that began then."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - started) > SAME_S:
            return None
    except psutil.Error:
        return None
    return process


def folder() -> Path:
    """Records and logs, beside Prefect's database. PREFECT_HOME is set by then (``prepare_environment``)."""
    return Path(os.environ["PREFECT_HOME"]).expanduser() / "services"


def log_of(name: str) -> Path:
    return folder() / f"{name}.log"


def remember(name: str, pid: int, port: int) -> Service:
    service = Service(name, pid, psutil.Process(pid).create_time(), port)
    write_json(_record(name), asdict(service))
    return service


def forget(name: str) -> None:
    _record(name).unlink(missing_ok=True)


def running(name: str) -> Service | None:
    """The service, if it was started and has not ended. A record that cannot be read is none."""
    try:
        service = Service(**json.loads(_record(name).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return service if service.process else None


def _record(name: str) -> Path:
    return folder() / f"{name}.json"
