"""dvc.lock written an entry at a time: the bytes that DVC writes, at a cost that does not grow with the iterations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.versioning.dvc_lock import LOCK, mend_lock, recorded_outputs
from flows.versioning.pipeline import PARAMETERS, node, write_pipeline
from flows.versioning.versions import Versions
from tasks.parameters.experiment import load_experiment
from tasks.registry import plan
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path
from tasks.running.runner import write_parameters
from tests.platform.workspace import REPOSITORY


def workspace(folder: Path, iterations: int) -> Path:
    """One whose stages all wrote a few bytes; nothing is recorded."""
    text = (REPOSITORY / "tests" / "platform" / "params.yaml").read_text()
    (folder / "data" / "sources").mkdir(parents=True)
    (folder / "params.yaml").write_text(text.replace("iterations: 2", f"iterations: {iterations}"))
    write_pipeline(folder, iterations)
    experiment = load_experiment(folder / "params.yaml")
    layout = Layout(folder, experiment.experiment)
    write_parameters(experiment, layout)
    for stage, iteration in plan(iterations):
        made = stage.output_folder(layout, iteration)
        for name in [*stage.outputs.values(), manifest_path(Path(), stage.name).name]:
            path = made / name if "." in name else made / name / "file"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {iteration}")
    return folder


def record(folder: Path, iterations: int) -> Versions:
    versions = Versions(folder)
    for name in [PARAMETERS, *(node(*step) for step in plan(iterations))]:
        versions.commit(name)
    return versions


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations. Read only."""
    folder = workspace(tmp_path_factory.mktemp("recorded") / "clone", 2)
    record(folder, 2)
    return folder


@pytest.fixture
def again(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "clone"))


def test_it_is_what_dvc_writes(again: Path) -> None:
    lock = again / LOCK
    ours = lock.read_text()
    lock.unlink()
    with chdir(again), Repo() as repo:
        for stage in [PARAMETERS, *(node(*step) for step in plan(2))]:
            repo.commit(stage, force=True)
        assert lock.read_text() == ours
        assert repo.status() == {}
    assert Versions(again)._stale == set()


@pytest.mark.parametrize("iterations", [1, 4])
def test_what_a_commit_costs_does_not_grow(tmp_path: Path, iterations: int) -> None:
    """Not one entry of dvc.lock is parsed for it, and it writes its own lines only."""
    folder = workspace(tmp_path, iterations)
    lock, counts = folder / LOCK, set()
    versions = Versions(folder)
    versions.commit(PARAMETERS)
    for name in (node(*step) for step in plan(iterations)):
        before = lock.read_bytes()
        versions.commit(name)
        after = lock.read_bytes()
        assert after.startswith(before), "appended"
        assert after[len(before) :].startswith(f"  {name}:\n".encode())
        assert versions.is_up_to_date(name)
        counts.add(versions.lock.parsed)
    assert counts == {0}


def test_a_changed_stage_takes_its_old_place(again: Path) -> None:
    versions, lock = Versions(again), again / LOCK
    read, before = versions.lock.parsed, lock.read_text()
    (again / "data/runs/tiny/1/mining.json").write_text("other")
    versions.commit("mine@1")
    assert versions.is_up_to_date("mine@1")
    assert not versions.is_up_to_date("summary"), "it reads the whole run"
    assert versions.lock.parsed == read
    changed = [n for n, (one, other) in enumerate(zip(before.split("\n"), lock.read_text().split("\n"), strict=True))
               if one != other]  # fmt: skip
    assert len(changed) == 2, "digest and size"


def test_what_another_process_writes_is_seen(again: Path) -> None:
    versions = Versions(again)
    (again / "data/runs/tiny/1/mining.json").write_text("other")
    versions.commit(PARAMETERS)  # so that the next question is asked anew
    assert not versions.is_up_to_date("mine@1")
    with chdir(again), Repo() as repo:
        repo.commit("mine@1", force=True)
    assert versions.is_up_to_date("mine@1")


def test_sections_of_ones_own_behind_the_stages_stay(again: Path) -> None:
    lock = again / LOCK
    lock.write_text(lock.read_text() + "datasets: []\n")
    (again / "data/runs/tiny/1/mining.json").write_text("other")
    versions = Versions(again)
    versions.commit("mine@1")
    assert versions.is_up_to_date("mine@1")
    assert lock.read_text().endswith("datasets: []\n")


@pytest.mark.parametrize(
    ("cut", "left"),
    [(lambda text: text[: text.index("  mine@1:") + 60], ["mine@1", "mine@2"]), (lambda text: text[:5], [])],
)
def test_a_cut_costs_the_last_entry(again: Path, cut: Callable[[str], str], left: list[str]) -> None:
    lock = again / LOCK
    whole = lock.read_text()
    lock.write_text(cut(whole) + "\x00")
    mend_lock(again)
    if left:
        assert lock.read_text() == whole[: whole.index("  mine@1:")]
    else:
        assert not lock.exists()


def test_what_the_cache_calls_an_output(again: Path) -> None:
    """Not of an earlier record: the manifest that lies there has to be the recorded one."""
    manifest = manifest_path(again / "data/runs/tiny/2", "distill")
    found = recorded_outputs(again, "distill@2", manifest)
    assert found["data/runs/tiny/2/policy"].endswith(".dir")
    with chdir(again), Repo() as repo:
        assert all(repo.cache.local.exists(name) for name in found.values())
    assert recorded_outputs(again, "distill@3", manifest) == {}
    manifest.write_text("another")
    assert recorded_outputs(again, "distill@2", manifest) == {}
