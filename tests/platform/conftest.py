"""Real workspaces: one trained through Prefect, one through ``dvc repro``, and throw-away copies of the first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


def made_once(factory: pytest.TempPathFactory, name: str, command: str) -> Workspace:
    """A workspace in which the command has run, shared by all of pytest's worker processes."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder / "clone", ignore_errors=True)  # of a worker that failed at it
            new_workspace(folder / "clone").sh(f"{command} > run.log 2>&1", timeout=1500)
            (folder / "done").touch()
    return Workspace(folder / "clone")


@pytest.fixture(scope="session")
def reproducing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Workspace]]:
    """The same as ``trained`` through ``dvc repro``, a process a stage, with a cache of its own; in the background."""
    tmp_path_factory.getbasetemp()  # made here: two threads that ask first at once get two
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(made_once, tmp_path_factory, "dvc", "dvc repro")


@pytest.fixture(scope="session")
def trained(reproducing: Future[Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two iterations through the Prefect flow. Read only: tests that run something take a copy."""
    return made_once(tmp_path_factory, "prefect", "p2o run")


@pytest.fixture(scope="session")
def online(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two iterations that search online, from the base of ``trained``, their stages one after the other. Read only."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "online"
    workspace = Workspace(folder / "clone")
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(workspace.root, ignore_errors=True)
            shutil.copytree(trained.root / "data" / "base", workspace.root / "data" / "base")
            shutil.copytree(trained.root / "recipes", workspace.root / "recipes")
            for name in ("params.yaml", "mlproject"):
                shutil.copyfile(trained.root / name, workspace.root / name)
            workspace.edit("params.yaml", "evolve: {min_hard: 6,", "evolve: {search: online, min_hard: 6,")
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True, warn_only=True)
            experiment = load_experiment(workspace.root / "params.yaml")
            with Runtime(lambda name: "") as runtime:
                for _ in run_plan(plan(2)[1:-1], experiment, Layout(workspace.root, "tiny"), runtime):
                    pass
            (folder / "done").touch()
    return workspace


@pytest.fixture(scope="session")
def reproduced(reproducing: Future[Workspace]) -> Workspace:
    return reproducing.result()


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
