"""Commands in processes of their own that end with the flow that started them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

LATE = 124
"""Exit status of a command that outlasted its limit, as ``timeout`` gives it."""
CLOSE_S = 5.0
"""Most seconds a command may take to end by itself once it is told to."""


class Processes:
    """Started from any of a flow's threads. Leaving the block, by Ctrl-C or Cancel for example, ends those that still
    run, and a thread that comes for another one gets a RuntimeError."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            end(self._running)

    def run(self, command: Sequence[str], log: Path, *, cwd: Path | None = None, limit_s: float | None = None) -> int:
        """Exit status of a command whose output goes to ``log``; ``LATE`` when it had to be ended after ``limit_s``."""
        with self._lock:
            if self._over:
                raise RuntimeError(f"{' '.join(command)}: not started, its flow has ended")
            with log.open("w") as stream:
                process = subprocess.Popen(command, cwd=cwd, stdout=stream, stderr=stream)
            self._running.append(process)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return LATE
        finally:
            with self._lock:
                if not self._over:
                    end([process])
                    self._running.remove(process)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, and after ``CLOSE_S`` kill -9 for whatever is left of them and of what they started."""
    running = [process for process in processes if process.poll() is None]
    below = [child for process in running for child in _descendants(process.pid)]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + CLOSE_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
