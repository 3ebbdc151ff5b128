"""Real workspaces: one trained through Prefect, one through ``dvc repro``, and throw-away copies of the first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from selenium.webdriver import Chrome

from tasks.parameters.experiment import load_experiment
from tasks.registry import plan
from tasks.running.layout import Layout
from tasks.running.plan import run_plan
from tasks.running.runtime import Runtime
from tests.platform.chromium import chromium
from tests.platform.home import Home, started
from tests.platform.servers import Server, prefect_server
from tests.platform.workspace import Workspace, new_workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that make the workspace which most others need; the other workers begin with the library's."""
    items.sort(key=lambda item: item.path.name != "test_artefacts.py")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Workspace], None]) -> Workspace:
    """A new workspace in which ``make`` has run, shared by all of pytest's worker processes."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder / "clone", ignore_errors=True)  # of a worker that failed at it
            make(new_workspace(folder / "clone"))
            (folder / "done").touch()
    return Workspace(folder / "clone")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two iterations through the Prefect flow. Read only: tests that run something take a copy."""
    return made_once(tmp_path_factory, "prefect", lambda new: new.long("p2o run"))


@pytest.fixture(scope="session")
def reproduced(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same through ``dvc repro``, a process a stage, with a cache of its own. The base is the one of ``trained``:
    that training it twice gives the same bytes is seen by the micro-world's own tests, in a second."""

    def make(new: Workspace) -> None:
        shutil.copytree(trained.root / "data" / "base", new.root / "data" / "base")
        new.sh("p2o resolve && dvc commit --quiet --force parameters prepare")  # or DVC deletes it, and makes it anew
        new.long("dvc repro")

    return made_once(tmp_path_factory, "dvc", make)


@pytest.fixture(scope="session")
def online(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two iterations that search online, from the base of ``trained``, their stages one after the other. Read only."""

    def make(new: Workspace) -> None:
        shutil.copytree(trained.root / "data" / "base", new.root / "data" / "base")
        new.edit("params.yaml", "evolve: {min_hard: 6,", "evolve: {search: online, min_hard: 6,")
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        experiment = load_experiment(new.root / "params.yaml")
        with Runtime(lambda name, field: "") as runtime:
            for _ in run_plan(plan(2)[1:-1], experiment, Layout(new.root, "tiny"), runtime):
                pass

    return made_once(tmp_path_factory, "online", make)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server for commands that do not need one of their own, which takes them five seconds each."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture
def copy(trained: Workspace, prefect: Server, tmp_path: Path) -> Workspace:
    """A copy of the trained workspace, data, caches and databases included."""
    shutil.copytree(trained.root, tmp_path / "clone", symlinks=True)
    return Workspace(tmp_path / "clone", {"PREFECT_API_URL": f"{prefect.url}/api"})


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Workspace]:
    return lambda: new_workspace(tmp_path / "fresh")


@pytest.fixture(scope="module")
def home(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A clone in which `p2o up` has started everything."""
    with started(trained, tmp_path_factory.mktemp("services") / "clone") as home:
        yield home


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver
