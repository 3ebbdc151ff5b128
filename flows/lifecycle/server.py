"""A run's own Prefect server, where no other one is named: started first, and up when the rest is imported.

Left to itself Prefect starts it when a flow asks for it, and imports all of the server into the run as well.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.services.records import PREFECT, running
from tasks.running.storage import check_room

SERVER = "prefect.server.api.server:create_app"
"""In the command line of every Prefect server."""
DATABASE_MIB = 8
"""Prefect's and MLflow's, new, with their journals; without room Prefect's server fails in a thousand lines."""
EPHEMERAL = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""What Prefect tells a server that it starts for a run: no pages, and few services."""
STOP_S = 5.0
"""Seconds that the server has to end by itself, as Prefect gives it."""


@dataclass(frozen=True)
class OwnServer:
    """A server that ends with this process, however that ends; ``url`` is its API's."""

    process: subprocess.Popen[bytes]
    url: str

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError where it ended or does not answer in the time that Prefect's setting
        gives it."""
        import httpx

        limit_s = float(os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"))
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and self.process.poll() is None:
            try:  # the socket listens already, and the answer comes when there is somebody to give it
                if httpx.get(f"{self.url}/health", timeout=limit_s).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        status = self.process.poll()
        how = f"did not answer in {limit_s:.0f} s" if status is None else f"ended with status {status}"
        raise RuntimeError(f"Prefect's server of this run {how}; what it said stands above")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_own: list[OwnServer] = []
"""This process's, if it has one."""


def start_server() -> None:
    """Start this process's server, unless `p2o up` has one for all runs, or the user's settings may name another one or
    forbid it, and point Prefect, not imported yet, to it. First it ends what killed runs left.

    Raises:
        BadInput: the disk has no room for its database.
    """
    if not os.environ.get("PREFECT_API_URL") and (shared := running(PREFECT)):
        os.environ["PREFECT_API_URL"] = f"{shared.url}/api"
        return
    end_orphans()
    if _own or _settled_by_the_user():
        return
    check_room(_prefect_home(), DATABASE_MIB)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "flows.lifecycle.server_process", SERVER, str(listener.fileno())]
        process = subprocess.Popen(
            command, env=os.environ | EPHEMERAL, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
        )
        own = OwnServer(process, f"http://127.0.0.1:{listener.getsockname()[1]}/api")
    _own.append(own)
    os.environ["PREFECT_API_URL"] = own.url  # Prefect's threads look there too
    atexit.register(own.stop)  # registered before Prefect's exit handlers, which send what is left: it runs after them


def own_server() -> OwnServer | None:
    """The server that :func:`start_server` started."""
    return _own[0] if _own else None


def _prefect_home() -> Path:
    return Path(os.environ["PREFECT_HOME"]).expanduser()


def _settled_by_the_user() -> bool:
    """The places where Prefect looks for its settings. Where one may speak of servers, Prefect decides, as ever."""
    if any(
        os.environ.get(name) for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")
    ):
        return True
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or _prefect_home() / "profiles.toml").expanduser()
    files = {profiles: "", Path("prefect.toml"): "", Path("pyproject.toml"): "[tool.prefect", Path(".env"): "PREFECT_"}
    return any(path.is_file() and said in path.read_text(errors="replace") for path, said in files.items())


def end_orphans() -> int:
    """A server started for a run is its child and ends with it. One of an earlier version, or one that hangs, may
    outlive a kill -9; the next run of the same PREFECT_HOME ends it. Returns how many there were."""
    if os.environ.get("PREFECT_API_URL"):  # no server of our own is wanted, and the one that is may look the same
        return 0
    home, found = os.environ.get("PREFECT_HOME", ""), 0
    for process in psutil.process_iter(["ppid", "cmdline"]):
        if process.info["ppid"] != 1 or not any(SERVER in word for word in process.info["cmdline"] or ()):
            continue
        try:
            if home and process.environ().get("PREFECT_HOME") == home:
                process.terminate()
                found += 1
        except psutil.Error:
            continue  # ended by itself, or somebody else's
    return found
