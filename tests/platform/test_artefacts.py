"""Damaged files, full and closed disks, and data sets that change under a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from p2o_core.schemas import read_problems
from tests.platform.test_doors import digests
from tests.platform.workspace import Workspace


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def swap(path: Path) -> None:
    """Another iteration's file of the same name: readable, and wrong."""
    path.write_bytes((path.parents[1] / "1" / path.name).read_bytes())


def edit(path: Path) -> None:
    text = path.read_text()
    changed = re.sub(r'"mean_score": [\d.]+', '"mean_score": 1.0', text, count=1)
    path.write_text(changed if changed != text else text + " ")


@pytest.mark.parametrize(
    ("damage", "name", "stage"),
    [
        (truncate, "rollouts.parquet", "verify"),
        (flip, "verdicts.parquet", "mine"),
        (swap, "rollouts.parquet", "verify"),
        (flip, "policy/model.safetensors", "evaluate"),
        (edit, "templates.json", "evaluate"),
    ],
)
def test_damage_is_found_before_use(copy: Workspace, damage: Callable[[Path], None], name: str, stage: str) -> None:
    path = copy.run / "2" / name
    damage(path)
    refused = copy.sh(f"p2o stage {stage} --iteration 2", check=False)
    assert refused.returncode == 2
    named = path if "/" not in name else path.parent
    assert f"{named}: its digest is" in refused.stderr
    assert len(re.findall(r"[0-9a-f]{64}", refused.stderr)) == 2, "both digests"
    assert "Mend" in refused.stderr


def test_a_run_mends_what_was_damaged(copy: Workspace, trained: Workspace) -> None:
    for damage, name in ((flip, "rollouts.parquet"), (truncate, "policy/model.safetensors"), (edit, "templates.json")):
        damage(copy.run / "2" / name)
    copy.sh("p2o run")
    assert digests(copy) == digests(trained)
    assert all(copy.root.joinpath(n).exists() for n in digests(copy))
    assert "up to date" in copy.sh("dvc status").stdout


@pytest.mark.parametrize("share", [0.4, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.0, 0.97))])
def test_a_dvc_lock_cut_by_a_kill_is_mended(copy: Workspace, trained: Workspace, share: float) -> None:
    """DVC writes it in place; what is finished is recorded again and nothing is run."""
    lock = copy.root / "dvc.lock"
    content = lock.read_bytes()
    lock.write_bytes(content[: int(share * len(content))])
    shown = copy.sh("p2o run --no-run-cache").stdout
    assert not re.findall(r"^\S+: [\d.]+ s", shown, re.MULTILINE), "no stage was run"
    assert "up to date" in copy.sh("dvc status").stdout
    assert digests(copy) == digests(trained)


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in root.rglob("*") if path.is_file() and "timings" not in path.parts}


@pytest.mark.parametrize(("stage", "kib"), [("rollout", 4), pytest.param("distill", 300, marks=pytest.mark.slow)])
def test_a_disk_that_takes_no_more(copy: Workspace, trained: Workspace, stage: str, kib: int) -> None:
    """As the kernel says it when a file may not grow (EFBIG). Nothing half written stays; afterwards it goes on."""
    before = files(copy.root / "data" / "runs")
    refused = copy.sh(f"ulimit -f {kib} && p2o stage {stage} --iteration 2", check=False)
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert "the disk is full" in refused.stderr
    assert "Mend" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert files(copy.root / "data" / "runs") == before, "the old outputs are still whole"
    hidden = [path for path in (copy.root / "data").rglob(".*") if path.is_file() and path.name != ".gitignore"]
    assert hidden == [], "no drafts"
    copy.sh(f"p2o stage {stage} --iteration 2")
    assert digests(copy) == digests(trained)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_full_disk(copy: Workspace) -> None:
    with mounted(copy.run / "2", "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
        refused = copy.sh("p2o stage rollout --iteration 2", check=False)
        assert refused.returncode == 2, refused.stderr[-2000:]
        assert "the disk is full" in refused.stderr
        assert not list((copy.run / "2").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_folder_that_may_not_be_written_to(copy: Workspace) -> None:
    folder = copy.run / "2"
    before = files(folder)
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        refused = copy.sh("p2o stage rollout --iteration 2", check=False)
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert f"{folder}: not writable" in refused.stderr
    assert files(folder) == before


@pytest.mark.slow
def test_a_changed_data_set_is_refused(copy: Workspace) -> None:
    sources = copy.root / "data" / "sources"
    problems = [asdict(p) for p in read_problems(copy.root / "data/base/train.parquet")]
    held_out = [asdict(p) for p in read_problems(copy.root / "data/base/heldout.parquet")]
    (sources / "train.jsonl").write_text("\n".join(map(json.dumps, problems)))
    (sources / "heldout.jsonl").write_text("\n".join(map(json.dumps, held_out)))
    copy.sh("cp -r data/base/policy data/sources/policy")
    files = "{type: files, train: train.jsonl, heldout: heldout.jsonl, policy: policy}"
    command = f"p2o run --arm grpo --iterations 1 --set 'prepare={files}'"
    copy.sh(command)
    (workspace,) = (copy.root / "experiments").iterdir()
    before = digests(Workspace(workspace))

    (sources / "train.jsonl").write_text("\n".join(map(json.dumps, problems[:-1])))
    refused = copy.sh(command, check=False)
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert len(set(re.findall(r"[0-9a-f]{64}", refused.stderr))) == 2
    assert "was trained on" in refused.stderr
    assert "Mend" in refused.stderr
    assert digests(Workspace(workspace)) == before
    through_dvc = Workspace(workspace).sh("dvc repro", check=False)
    assert "was trained on" in through_dvc.stderr + through_dvc.stdout
