"""The doctor's probes of endpoints, against real ones on loopback; and what the tools themselves say of telemetry."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flows import TELEMETRY_OFF
from flows.preflight.doctor import Health, _probe
from tests.loopback import Reply, Request, free_port, served


def secured(request: Request) -> Reply:
    return Reply(200 if request.headers.get("Authorization") == "Bearer right" else 401)


@pytest.mark.parametrize(
    ("key", "health", "found"),
    [
        ("right", Health.OK, "answers (200)"),
        ("wrong", Health.FAILED, "answers with status 401"),
        ("", Health.FAILED, "answers with status 401"),
        ("no header\nholds this", Health.FAILED, "Error"),
    ],
)
def test_an_endpoint_that_wants_a_key(key: str, health: Health, found: str) -> None:
    with served(secured) as url:
        check = _probe("teacher", f"{url}/models", key, "correct the key")
    assert (check.health, check.mend) == (health, "" if health is Health.OK else "correct the key")
    assert found in check.found
    assert "holds this" not in check.found, "a key is never printed"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/health", "http://[nonsense", "nonsense"])
def test_an_endpoint_that_is_not_there(url: str) -> None:
    url = url.format(port=free_port())
    check = _probe("server", url, "", "start it")
    assert (check.health, check.mend) == (Health.FAILED, "start it")


def test_the_tools_send_nothing_unless_the_user_wants_it() -> None:
    """MLflow's and DVC's own answers, in a process that imports ``flows`` first as all of ours do."""
    asks = (
        "import flows, os; from mlflow.telemetry.utils import is_telemetry_disabled; from dvc import analytics;"
        "print(is_telemetry_disabled(), analytics.is_enabled(), os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}
    done = subprocess.run(
        [sys.executable, "-c", asks],
        env=inherited | {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-3:] == ["True", "False", "true"]
