"""A comparison's report where much is missing, or there is more than usual: a page with gaps, no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.comparison.arms import Arm
from flows.comparison.entries import Comparison, World
from flows.comparison.page import contents, rendering
from flows.comparison.runs import Evidence, Run
from p2o_core.schemas import write_record, write_rows
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Completion, Judged, Problem, TemplateSearch
from tests.flows.test_comparison_report import UPDATE, judged, write_run
from tests.platform.workspace import REPOSITORY

GAP = "No run has an iteration within the budget"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "mlproject").touch()
    return tmp_path


def evidence(workspace: Path, arms: tuple[str, ...], tiers: tuple[str, ...], world: str = "") -> Evidence:
    problems = [Problem(f"{tier}-{i}", "q", "1", tier, "heldout") for tier in tiers for i in range(4)]
    runs = {}
    for arm in (Arm(name, seed, world) for name in arms for seed in range(2)):
        run = write_run(workspace, arm, [dict.fromkeys(tiers, 1), dict.fromkeys(tiers, 2)], 100, 0.5, problems)
        folder = run.folder / "1"
        write_rows(folder / "verdicts.parquet", judged({"t": [0, 1]}), Judged)
        write_rows(folder / "templated.parquet", [], Completion)
        write_rows(folder / "templated_verdicts.parquet", [], Judged)
        write_rows(folder / "transfer.parquet", [], TemplatedOutcome)
        write_record(folder / "templates.json", TemplateSearch("too_few_hard"))
        write_record(folder / "update.json", UPDATE)
        runs[arm] = run
    worlds = tuple(World(name=name, settings={}) for name in (["easier"] if world else []))
    comparison = Comparison(
        recipe=Path("params.yaml"), arms=arms, budget_tokens=200, max_iterations=1, sweep=worlds, sweep_arms=arms[:2]
    )
    return Evidence(comparison, workspace, runs, {(world, 0): problems})


def pages(found: Evidence) -> list[str]:
    content = contents(found)
    json.dumps([finding.to_json() for finding in content["findings"]], allow_nan=False)
    return [rendering(name, content) for name in ("report.html", "report.md")]


def test_no_iteration_fits_the_budget(workspace: Path) -> None:
    found = evidence(workspace, ("p2o", "grpo"), ("easy", "hard"))
    assert all(GAP not in page for page in pages(found))
    cut = {arm: Run(arm, run.folder, run.rows[:1]) for arm, run in found.runs.items()}
    assert all(GAP in page for page in pages(Evidence(found.comparison, workspace, cut, found.problems)))


def test_only_easy_problems_and_variants(workspace: Path) -> None:
    assert contents(evidence(workspace, ("p2o", "p2o-no-mask", "p2o-lora"), ("easy",)))["pictures"]["variants"] == ""


def test_only_worlds_of_the_sweep_are_finished(workspace: Path) -> None:
    for page in pages(evidence(workspace, ("p2o", "grpo"), ("hard",), world="easier")):
        assert "4 finished runs" in page


def test_many_tiers_stand_in_rows(workspace: Path) -> None:
    tiers = tuple(f"tier {n}" for n in range(14))
    curves = contents(evidence(workspace, ("p2o", "grpo"), tiers))["pictures"]["curves"]
    assert all(tier in curves for tier in tiers)
    width, height = (float(curves.split(f' {side}="')[1].split("pt")[0]) for side in ("width", "height"))
    assert (width, height) == pytest.approx((4 * 4.2 * 72, 4 * 3.6 * 72), rel=0.1)
