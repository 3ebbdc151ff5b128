"""The reflective world's base policy: what its examination asks, and prepare."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from microworld.competence import IncompetentBase
from microworld.reflective.competence import check
from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime

GOOD_SOLVING = {"easy": 0.97, "bare": 0.0, "fitting": 0.8, "other_family": 0.01, "harmful": 0.0}
GOOD_REVIEWING = {"mends_own": 0.8, "mends_stranger": 0.1, "copied": 0.9}


@pytest.mark.parametrize(
    ("part", "cell", "value", "words"),
    [
        ("solving", "easy", 0.8, "easy"),
        ("solving", "bare", 0.1, "bare"),
        ("solving", "fitting", 0.3, "told how"),
        ("solving", "other_family", 0.2, "another family"),
        ("solving", "harmful", 0.5, "harmful sentence"),
        ("reviewing", "mends_stranger", 0.7, "does not read"),
        ("reviewing", "copied", 0.5, "repeats"),
    ],
)
def test_an_incompetent_base_is_refused(part: str, cell: str, value: float, words: str) -> None:
    table: dict[str, Any] = {"solving": {"sum": dict(GOOD_SOLVING)}, "reviewing": {"sum": dict(GOOD_REVIEWING)}}
    check(copy.deepcopy(table), bare_at_most=0.02, reviewer_quality=0.6)
    table[part]["sum"][cell] = value
    with pytest.raises(IncompetentBase, match=rf"{words}.*Mend"):
        check(table, bare_at_most=0.02, reviewer_quality=0.6)


def test_prepare_measures_the_base_and_refuses_one_that_learnt_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microworld.pretrain.ROUNDS", 0)  # an examination takes seconds
    layout = Layout(tmp_path, "tiny")
    layout.sources.mkdir(parents=True)
    params = yaml.safe_load((Path(__file__).parents[2] / "recipes/reflective.yaml").read_text())
    params["prepare"] |= {"pretrain_steps": 3, "texts_per_step": 8, "hidden_size": 16, "layers": 1, "heads": 2}
    layout.params.write_text(yaml.safe_dump(params))
    with pytest.raises(IncompetentBase, match=r"solves only 0\.\d\d of the easy fall chains bare .*pretrain_steps"):
        run_stage(STAGES["prepare"], load_experiment(layout.params), layout, 0, Runtime())


def test_one_step_is_the_only_easy_length(tmp_path: Path) -> None:
    params = yaml.safe_load((Path(__file__).parents[2] / "recipes/reflective.yaml").read_text())
    params["prepare"]["easy_length"] = 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="only 1 is easy"):
        load_experiment(tmp_path / "params.yaml")
