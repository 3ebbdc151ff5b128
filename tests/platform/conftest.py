"""Real workspaces: one trained through Prefect, one through ``dvc repro``, and throw-away copies of the first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import BIN

REPOSITORY = Path(__file__).parents[2]
MANAGED = ("PREFECT_", "MLFLOW_", "DVC_")


@dataclass(frozen=True)
class Workspace:
    """A folder that holds what a clone holds, with the tests' params.yaml."""

    root: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its own."""

    @property
    def run(self) -> Path:
        return self.root / "data" / "runs" / "tiny"

    def sh(self, command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell command there, with the environment's programs first and no inherited settings."""
        done = subprocess.run(
            command,
            check=False,  # the callers that expect failure look at the status
            shell=True,
            cwd=self.root,
            env=environment() | dict(self.settings),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(MANAGED)}
    return inherited | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "true"}


def new_workspace(folder: Path) -> Workspace:
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", "mlproject", "recipes"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    shutil.copyfile(Path(__file__).with_name("params.yaml"), folder / "params.yaml")
    shutil.copyfile(Path(__file__).with_name("comparisons.yaml"), folder / "recipes" / "comparisons.yaml")
    shutil.copytree(REPOSITORY / "data" / "sources", folder / "data" / "sources")
    workspace = Workspace(folder)
    workspace.sh("git init -q && dvc init -q")
    return workspace


def made_once(factory: pytest.TempPathFactory, name: str, command: str) -> Workspace:
    """A workspace in which the command has run, shared by all of pytest's worker processes."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            new_workspace(folder / "clone").sh(f"{command} > run.log 2>&1")
            (folder / "done").touch()
    return Workspace(folder / "clone")


@pytest.fixture(scope="session")
def reproducing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Workspace]]:
    """The same as ``trained`` through ``dvc repro``, a process a stage, with a cache of its own; in the background."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(made_once, tmp_path_factory, "dvc", "dvc repro")


@pytest.fixture(scope="session")
def trained(reproducing: Future[Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two iterations through the Prefect flow. Read only: tests that run something take a copy."""
    return made_once(tmp_path_factory, "prefect", "p2o run")


@pytest.fixture(scope="session")
def reproduced(reproducing: Future[Workspace]) -> Workspace:
    return reproducing.result()


@pytest.fixture
def copy(trained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the trained workspace, data, caches and databases included."""
    shutil.copytree(trained.root, tmp_path / "clone", symlinks=True)
    return Workspace(tmp_path / "clone")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Workspace]:
    return lambda: new_workspace(tmp_path / "fresh")
