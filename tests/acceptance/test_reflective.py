"""The reflective world's base policy passes its examination on three seeds: ``make acceptance``."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from p2o_core.schemas import read_json, read_problems
from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime
from tests.platform.workspace import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_bases_solve_when_told_read_their_failures_and_copy(tmp_path: Path, seed: int) -> None:
    layout = Layout(tmp_path, "reflective")
    layout.sources.mkdir(parents=True)
    params = yaml.safe_load((REPOSITORY / "recipes" / "reflective.yaml").read_text())
    params["prepare"]["seed"] = seed
    layout.params.write_text(yaml.safe_dump(params))
    run_stage(STAGES["prepare"], load_experiment(layout.params), layout, 0, Runtime())  # raises IncompetentBase
    table = read_json(layout.base / "competence.json")
    assert all(review["copied"] >= 0.8 for review in table["reviewing"].values())
    assert all(solving["fitting"] >= 0.4 for solving in table["solving"].values())
    phrases, strangers = (read_json(layout.base / f"{name}.json") for name in ("phrases", "strangers"))
    assert len(phrases) == 1152
    assert {stranger["kind"] for stranger in strangers} == {
        p.kind for p in read_problems(layout.base / "train.parquet")
    }
