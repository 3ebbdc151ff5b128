"""What a command imports and asks before it answers: counted, since seconds on a busy machine prove nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.platform.workspace import Workspace, environment, new_workspace

IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)
LEARNING = {"torch", "transformers", "peft", "vllm", "gepa", "sklearn", "datasets"}
ORCHESTRATORS = {"prefect", "mlflow", "dvc", "fastapi", "sqlalchemy", "pandas", "matplotlib"}


def started(workspace: Workspace, *command: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command's end and the modules that its process imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.console", *command],
        cwd=workspace.root,
        env=environment() | dict(workspace.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    modules = set(IMPORTED.findall(done.stderr))
    assert "flows.console.training" in modules, done.stderr[-2000:]
    return done, modules


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """For commands that write nothing."""
    return new_workspace(tmp_path_factory.mktemp("startup") / "clone")


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("--help", 0),
        ("run --help", 0),
        ("run --set rollout.samples=x", 2),
        ("run --arm pso", 2),
        ("run --iterations 500", 2),
        ("run --recipe nosuch", 2),
        ("doctor --set rollout.samples=x", 2),
        ("plan --set rollout.samples=x", 2),
        ("compare --recipe nosuch", 2),
        ("evaluate --set samples", 2),
        ("evaluate --workspace recipes", 2),
        ("promote --set samples", 2),
        ("promote --workspace recipes", 2),
        ("track --workspace recipes", 2),
        ("serve --workspace recipes", 2),
        ("table --workspace recipes", 2),
        ("up --mlflow-port 0 --prefect-port 0", 2),
        ("status", 1),
        ("down", 0),
        ("resolve --workspace recipes", 2),
        ("stage nosuch", 2),
        ("stage rollout --iteration 99", 2),
    ],
)
def test_help_and_refusals_import_no_large_package(clone: Workspace, command: str, status: int) -> None:
    done, modules = started(clone, *command.split())
    assert done.returncode == status, done.stderr[-2000:]
    assert packages(modules) & (LEARNING | ORCHESTRATORS) == set()


COUNTED = """
import atexit, sys
from collections import Counter
from dvc.repo import Repo
from dvc.stage import Stage
calls = Counter()
def counted(kind, name):
    inner = getattr(kind, name)
    def outer(*args, **kwargs):
        calls[f"{kind.__name__}.{name}"] += 1
        return inner(*args, **kwargs)
    setattr(kind, name, outer)
for kind, name in ((Repo, "__init__"), (Repo, "status"), (Stage, "status"), (Stage, "commit")):
    counted(kind, name)
atexit.register(lambda: print("DVC", sorted(calls.items())))
sys.argv = ["p2o", "run"]
from flows.console.__main__ import main
main()
"""


def test_a_run_with_nothing_to_do_loads_no_model_and_asks_dvc_once_a_stage(copy: Workspace) -> None:
    """With a server of its own, whose code stays in the server's process."""
    done, modules = started(copy.on_its_own(), "run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("up to date") == 16, done.stdout
    assert packages(modules) & LEARNING == set()
    assert "prefect" in modules
    assert not [module for module in modules if module.startswith("prefect.server.api")]
    asked = subprocess.run(
        [sys.executable, "-c", COUNTED],
        cwd=copy.root,
        env=environment() | dict(copy.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    # of the sixteen, and of the one that resolves the parameters
    assert "DVC [('Repo.__init__', 1), ('Stage.status', 17)]" in asked.stdout, asked.stdout + asked.stderr[-2000:]


def test_the_own_server_ends_with_a_run_that_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """kill -9 leaves the run no time to end it."""
    home = tmp_path_factory.mktemp("prefect")
    script = (
        "import os, signal; from flows.lifecycle.server import own_server, start_server; start_server();"
        "own_server().wait(); print(own_server().process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    settings = environment() | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    # its output ends when the last process that may write to it does, the server too
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=home,
        env=settings,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -9
    assert int(done.stdout) > 0
