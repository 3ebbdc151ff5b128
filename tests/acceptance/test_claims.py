"""The embedded default's claims, on three seeds and both arms: ``make acceptance``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from p2o_core.schemas import read_json
from tests.platform.workspace import REPOSITORY, Workspace, new_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone with the default params.yaml."""
    workspace = new_workspace(tmp_path_factory.mktemp("acceptance") / "clone")
    shutil.copyfile(REPOSITORY / "params.yaml", workspace.root / "params.yaml")
    return workspace


@pytest.fixture(scope="module")
def runs(clone: Workspace) -> dict[tuple[str, int], Path]:
    """(arm, seed) to its run folder; the first trains the base policy, the others take it from DVC's run cache."""
    found = {}
    for seed in SEEDS:
        for arm in ("p2o", "grpo"):
            options = "".join([f" --arm {arm}" * (arm != "p2o"), f" --seed {seed}" * (seed != 0)])
            clone.sh(f"p2o run{options}", timeout=1800)
            name = "microworld" + f"-{arm}" * (arm != "p2o") + f"-s{seed}" * (seed != 0)
            root = clone.root if options == "" else clone.root / "experiments" / name
            found[arm, seed] = root / "data" / "runs" / name
    return found


def accuracy(run: Path, iteration: int, tier: str = "hard") -> float:
    return read_json(run / str(iteration) / "metrics.json")["accuracy"][tier]


def last(run: Path) -> int:
    return max(int(folder.name) for folder in run.iterdir())


def first_search(run: Path) -> dict[str, Any]:
    return read_json(run / "1" / "templates.json")


@pytest.mark.parametrize("seed", SEEDS)
def test_hard_problems_fail_bare_and_fall_to_a_template_that_gepa_found(runs: dict, seed: int) -> None:
    run = runs["p2o", seed]
    assert accuracy(run, 0) < 0.02
    mining = read_json(run / "1" / "mining.json")
    assert mining["by_difficulty"]["hard"]["solve_rate"] < 0.02
    search = first_search(run)
    assert search["status"] == "searched"
    assert search["templates"][0]["text"] == "", "nothing but the empty template was given"
    assert max(template["mean_score"] for template in search["templates"]) >= 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_distillation_raises_bare_accuracy(runs: dict, seed: int) -> None:
    run = runs["p2o", seed]
    assert accuracy(run, last(run)) - accuracy(run, 0) >= 0.30


@pytest.mark.parametrize("seed", SEEDS)
def test_grpo_gains_less_than_half_of_that(runs: dict, seed: int) -> None:
    p2o, grpo = runs["p2o", seed], runs["grpo", seed]
    assert last(grpo) == last(p2o), "the same number of iterations"
    gain = {name: accuracy(run, last(run)) - accuracy(run, 0) for name, run in (("p2o", p2o), ("grpo", grpo))}
    assert gain["grpo"] < 0.5 * gain["p2o"]


@pytest.mark.parametrize("seed", SEEDS)
def test_easy_problems_are_not_forgotten(runs: dict, seed: int) -> None:
    run = runs["p2o", seed]
    assert accuracy(run, last(run), "easy") >= 0.8
