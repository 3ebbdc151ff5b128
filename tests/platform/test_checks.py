"""The flow of checks on ones that end at once; the real ones run at night."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest

from flows.checks import CHECKS
from tests.platform.workspace import REPOSITORY, Workspace

SCRIPT = """
from pathlib import Path
from flows.lifecycle.environment import prepare_environment
prepare_environment(Path.cwd())
from flows import checks
checks.CHECKS.clear()
checks.CHECKS |= {"fine": ["pytest", "--version"], "broken": ["pytest", "--no-such-option"]}
checks.checks()
"""


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_can_be_started(name: str) -> None:
    module = CHECKS[name][0]
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_check_that_fails_fails_the_flow(fresh: Callable[[], Workspace]) -> None:
    workspace = fresh()
    (workspace.root / "night.py").write_text(SCRIPT)
    done = workspace.sh(f"{sys.executable} night.py", check=False)
    assert done.returncode != 0
    assert "checks failed: broken" in done.stderr
    with sqlite3.connect(workspace.root / ".prefect" / "prefect.db") as database:
        shown = dict(database.execute("select key, data from artifact where key like 'check-%'").fetchall())
    assert set(shown) == {"check-fine", "check-broken"}
    assert "ended with status 0" in shown["check-fine"]
    assert "no-such-option" in shown["check-broken"]
