"""MLflow's and Prefect's real servers on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.clock import PATIENCE_S
from tests.loopback import free_port
from tests.platform.workspace import environment


@dataclass
class Server:
    """A real server on loopback that can be killed and started again on its port."""

    command: str
    health: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                f"exec {self.command} --host 127.0.0.1 --port {self.port}",
                shell=True,
                cwd=self.folder,
                env=environment() | {"PREFECT_HOME": str(self.folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(self.url + self.health, timeout=30):
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def at_home(command: str, health: str, folder: Path) -> Iterator[Server]:
    """A server that is up, and gone afterwards."""
    folder.mkdir(exist_ok=True)
    server = Server(command, health, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def prefect_server(folder: Path) -> AbstractContextManager[Server]:
    return at_home("prefect server start", "/api/health", folder)
