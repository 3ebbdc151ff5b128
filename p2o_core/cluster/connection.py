"""The connection to a Ray cluster: one on this machine that ends with its user, or one that runs already."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from p2o_core.schemas import BadInput

INSTALL = "pip install 'p2o-lab[scale]', or engine.type: embedded"
PROBE_S = 5.0
"""Most seconds until whoever listens at a cluster's address has taken a connection."""
LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path at most."""
ANSWER_S = 60.0
"""Most seconds until a cluster has said what it has."""
ASK = (
    "import json, logging, sys, ray;"
    "ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR);"
    "print(json.dumps(ray.cluster_resources()))"
)
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
LOCAL = {
    # Ray's switch for machines without a cluster (ray._private.ray_constants.ENABLE_RAY_CLUSTER): all of its servers
    # listen on 127.0.0.1. Otherwise they listen on every address, whatever `_node_ip_address` says
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


def check_installed() -> None:
    """Raises BadInput: Ray is not there."""
    if importlib.util.find_spec("ray") is None:
        raise BadInput(f"engine.type is ray, and the package ray is not installed. Mend: {INSTALL}.")


def resources(address: str) -> dict[str, float]:
    """What a running cluster has: ``CPU``, ``GPU`` …. A process of its own asks: Ray tries again for ever where
    something else answers, or its token is another.

    Raises:
        BadInput: nobody takes a connection at ``host:port``, or it is no Ray cluster for us.
    """
    host, _, port = address.rpartition(":")
    where = f"engine.address {address}"
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"{where}: no Ray cluster answers there ({type(error).__name__}). Mend: `ray start --head --port=6379` on "
            "its first node and that node's host:port here, or leave it blank for a cluster of this machine."
        ) from error
    command = [sys.executable, "-c", ASK, address]
    try:
        asked = subprocess.run(
            command, env=QUIET | os.environ, capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"{where}: no answer from Ray within {ANSWER_S:.0f} s. Mend: look whether it is Ray's port, and set "
            "RAY_AUTH_TOKEN to the cluster's token where it has one."
        ) from error
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it ended without a word"])[-1][:300]
        raise BadInput(
            f"{where}: {said}. Mend: the same versions of Ray and Python on every node, this one among them "
            "(`ray start --address=host:port`)."
        )
    found: dict[str, float] = json.loads(asked.stdout.splitlines()[-1])
    return found


class Cluster:
    """Ray, connected. :meth:`close` ends a cluster of this machine, and takes leave of any other.

    ``slots`` and ``gpus`` are what a local cluster has to give: processors and cards, counted and not measured.

    Raises:
        BadInput: Ray is not installed, nobody answers at the address, or the cluster is not for us.
    """

    def __init__(self, address: str, *, slots: int = 1, gpus: int = 0) -> None:
        check_installed()
        if address:
            resources(address)
        self.local = not address
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="p2o-ray-", dir=_short_temp())) if self.local else None
        self._settings: dict[str, Any] = {"address": address}
        if self.local:
            self._settings = {"address": "local", "num_cpus": slots, "num_gpus": gpus, "include_dashboard": False}
            self._settings["_temp_dir"] = str(self._folder)
        self._begun: Future[None] = Future()
        self._over = threading.Event()
        # Ray's processes end with the *thread* that started them (PR_SET_PDEATHSIG): it must outlive every stage. Nor
        # does Ray take the signals' handlers from the main thread here.
        self._keeper = threading.Thread(target=self._keep, name="ray", daemon=True)
        self._keeper.start()
        try:
            self._begun.result()
        except BaseException:  # Ctrl-C while it starts, too
            self.close()
            raise

    @property
    def scratch(self) -> str:
        """The folder for actors' files; blank: each node's own folder for temporary ones."""
        return str(self._folder / "actors") if self._folder else ""

    def close(self) -> None:
        self._over.set()
        self._keeper.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self) -> None:
        try:
            self._connect()
        except BaseException as error:
            self._begun.set_exception(error)
            return
        self._begun.set_result(None)
        self._over.wait()
        import ray

        ray.shutdown()

    def _connect(self) -> None:
        if self.local and "ray" in sys.modules and (missing := [name for name in LOCAL if name not in os.environ]):
            raise BadInput(
                "engine.type ray: another library imported Ray before, which then read its settings. Mend: set "
                f"{' '.join(f'{name}={LOCAL[name]}' for name in missing)} in the environment and start again."
            )
        for name, value in (QUIET | LOCAL if self.local else QUIET).items():
            os.environ.setdefault(name, value)
        if self.local and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else every local user could run code here
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that we keep the signals' handlers
        # it prints what the raylet says of actors that died, whatever `log_to_driver` says; the crew logs that itself
        ray._private.worker._worker_logs_enabled = False
        ray.init(**self._settings, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
        if self.local and not all(ipaddress.ip_address(node["NodeManagerAddress"]).is_loopback for node in ray.nodes()):
            ray.shutdown()
            raise RuntimeError("Ray was imported before its settings, and listens on more than loopback")


def _short_temp() -> str:
    """Where Ray's sockets find room: their paths end some 70 characters after the folder's."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < LONGEST_SOCKET - 80 else "/tmp"
