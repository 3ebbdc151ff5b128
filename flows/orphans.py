"""Prefect servers that a killed run left behind."""

from __future__ import annotations

import os

import psutil

SERVER = "prefect.server.api.server:create_app"


def end_orphans() -> int:
    """A run without a server of its own starts one for itself, as a child. kill -9 of the run does not reach it; the
    next run of the same PREFECT_HOME ends it. Returns how many there were."""
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
