"""Weights are hashed once: how many bytes an iteration reads only to know what they are."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from p2o_core import digests
from p2o_core.digests import digest
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment
from tasks.registry import ITERATION, STAGES
from tasks.running.layout import Layout
from tasks.running.runner import is_fresh, run_stage
from tasks.running.runtime import Runtime
from tasks.running.stage import Stage, StageIO

SIZES = {"base": 50_000, "policy": 100_000, "optimizer": 200_000}
"""Bytes of a base policy in bfloat16, of float32 weights, of AdamW's two moments: as 1 : 2 : 4."""
SMALL = 10_000
"""Everything else that an iteration hashes, together, is less."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes read for digests from now on, by folder or file."""
    counted: Counter[str] = Counter()
    whole = digests.read_digest

    def counting(path: Path) -> str:
        counted[path.parent.name if path.name == "weights" else path.name] += path.stat().st_size
        return whole(path)

    monkeypatch.setattr(digests, "read_digest", counting)
    monkeypatch.setattr(digests, "TICK_NS", 0)  # files this small are hashed within a tick of the clock
    return counted


def writing(stage: Stage) -> Stage:
    """The stage, which writes files of the right sizes in place of its work, and knows its policies by their digests as
    the runtime does."""

    def run(io: StageIO) -> None:
        for key, path in io.outputs.items():
            if key in SIZES:
                path.mkdir()
                size = SIZES["base" if io.stage == "prepare" else key]
                (path / "weights").write_bytes(os.urandom(size))
            else:
                path.write_bytes(b"{}")
        for path in (io.inputs.get("policy"), io.outputs.get("policy")):
            if path is not None:
                digest(path)

    return replace(stage, run=run)


def made(experiment: Experiment, layout: Layout, stages: list[Stage], iteration: int) -> None:
    with Runtime() as runtime:
        for stage in stages:
            run_stage(writing(stage), experiment, layout, iteration, runtime)


@pytest.fixture
def experiment() -> Experiment:
    content = {"experiment": "x", "iterations": 3, "rollout": {"problems": 4, "max_new_tokens": 4}}
    return Experiment.model_validate(content | {"evaluate": {"max_new_tokens": 4}})


@pytest.fixture
def layout(experiment: Experiment, tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "x")
    layout.sources.mkdir(parents=True)
    made(experiment, layout, [STAGES["prepare"], STAGES["init"], STAGES["evaluate"]], 0)
    made(experiment, layout, list(ITERATION), 1)
    return layout


def test_an_iteration_hashes_what_it_writes_and_nothing_twice(
    experiment: Experiment, layout: Layout, read: Counter[str]
) -> None:
    made(experiment, layout, list(ITERATION), 2)
    read.clear()
    made(experiment, layout, list(ITERATION), 3)
    assert read.pop("policy") == SIZES["policy"]
    assert read.pop("optimizer") == SIZES["optimizer"]
    assert sum(read.values()) < SMALL
    read.clear()
    assert all(is_fresh(stage, experiment, layout, 3) for stage in ITERATION)
    assert not read["policy"] + read["optimizer"]


@pytest.mark.parametrize("stage", ["rollout", "evolve", "distill", "evaluate"])
def test_a_process_of_its_own_reads_what_the_stage_needs(
    experiment: Experiment, layout: Layout, read: Counter[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """As `dvc repro` runs it: base and policy once, the optimiser for the update alone."""
    made(experiment, layout, list(ITERATION), 2)
    monkeypatch.setattr(digests, "_known", {})
    read.clear()
    made(experiment, layout, [STAGES[stage]], 2)
    written = SIZES["policy"] + SIZES["optimizer"] if stage == "distill" else 0
    assert read["policy"] + read["optimizer"] == SIZES["base"] + SIZES["policy"] + written + (
        SIZES["optimizer"] if stage == "distill" else 0
    )


def test_what_is_changed_in_place_is_read_again(
    experiment: Experiment, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same place, same size, same inode; also within the tick of the file system's clock."""
    weights = layout.iteration(1) / "policy" / "weights"
    content = bytearray(weights.read_bytes())
    for _ in range(20):
        before = digest(weights)
        content[7] ^= 1
        with weights.open("r+b") as stream:
            stream.write(content)
        assert digest(weights) != before
    content[8] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match=r"its digest is .*distill.manifest.json says.*Mend"):
        made(experiment, layout, [STAGES["rollout"]], 2)


def test_a_file_put_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path, content in ((one, b"1"), (other, b"2")):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    first, second = digest(one), digest(other)
    assert first != second
    os.replace(other, one)
    assert digest(one) == second


def test_the_run_of_an_earlier_version_is_refused(experiment: Experiment, layout: Layout) -> None:
    """Its optimiser lies inside the policies: everything would silently be trained again."""
    (layout.iteration(1) / "policy" / "optimizer").mkdir()
    for stage in STAGES.values():
        with pytest.raises(BadInput, match=r"1/policy/optimizer: an earlier version made this run.*Mend"):
            made(experiment, layout, [stage], 1)
