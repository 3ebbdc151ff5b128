"""The map: a grid of worlds, who wins in each, and the report of a comparison that has nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.comparison.arms import Arm, arms_of
from flows.comparison.entries import Comparison, check_comparison
from flows.comparison.page import contents, rendering
from flows.comparison.runs import Evidence
from flows.comparison.winners import QUALITY, SHARE, winner_map
from tests.flows.test_comparison_report import PROBLEMS, write_run
from tests.platform.workspace import REPOSITORY

ARMS = ("p2o-online", "once", "grpo")
START = {"easy": 3, "hard": 0, "ood": 0}
SOLVED = {
    "q0-h2": {"p2o-online": 1, "once": 1, "grpo": 2},
    "q0-h100": {"p2o-online": 4, "once": 0, "grpo": 0},
    "q1-h2": {"p2o-online": 3, "once": 4},  # grpo is not finished
    "q1-h100": {"p2o-online": 0, "once": 3, "grpo": 1},
}
"""Hard problems of four that each arm solves in each world."""


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    for name in ("recipes", "params.yaml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "mlproject").touch()
    comparison = Comparison(
        recipe=Path("recipes/reflective.yaml"),
        arms=(),
        budget_tokens=1000,
        max_iterations=9,
        claims=(),
        grid={QUALITY: {"q0": 0.0, "q1": 1.0}, SHARE: {"h2": 0.02, "h100": 1.0}},
        sweep_arms=ARMS,
        sweep_seeds=1,
    )
    runs = {
        arm: write_run(tmp_path, arm, [START, START | {"hard": SOLVED[arm.world][arm.arm]}], 100, 0.5)
        for arm in arms_of(comparison)
        if arm.arm in SOLVED[arm.world]
    }
    return Evidence(comparison, tmp_path, runs, {(world, 0): PROBLEMS for world in SOLVED})


def test_each_world_has_a_winner_once_all_arms_are_finished(evidence: Evidence) -> None:
    found = {cell.world: cell for cell in winner_map(evidence)}
    assert {name: (cell.winner, cell.accuracy, cell.second) for name, cell in found.items()} == {
        "q0-h2": ("grpo", 2 / 4, "p2o-online"),
        "q0-h100": ("p2o-online", 1.0, "once"),
        "q1-h2": ("", 0.0, ""),
        "q1-h100": ("once", 3 / 4, "grpo"),
    }
    margins = {name: cell.margin.value for name, cell in found.items() if cell.margin is not None}
    assert margins == pytest.approx({"q0-h2": 1 / 4, "q0-h100": 1.0, "q1-h100": 2 / 4})
    assert (found["q1-h2"].finished, found["q1-h2"].margin) == (2, None)
    assert [(cell.quality, cell.share) for cell in found.values()] == [(0, 0.02), (0, 1), (1, 0.02), (1, 1)]


def test_the_report_shows_the_map_and_needs_no_run_of_the_recipe_s_own_world(evidence: Evidence) -> None:
    content = contents(evidence)
    picture = content["pictures"]["map"]
    for text in ("reviewer quality", "grpo", "50 % (+25)", "100 % (+100)", "75 % (+50)", "2 of 3"):
        assert text in picture
    pages = [rendering(name, content) for name in ("report.html", "report.md")]
    assert all("2 of 3 arms done" in page for page in pages)
    assert "Which arm wins where" in pages[0]
    assert content["pictures"]["sweep"] == "", "bars of 25 worlds show nothing"


def test_a_sweep_of_other_settings_has_no_map(evidence: Evidence) -> None:
    comparison = evidence.comparison.model_copy(update={"grid": {"prepare.seed": {"a": 1, "b": 2}}})
    assert winner_map(Evidence(comparison, evidence.workspace, {}, {})) == []


def test_the_entry_map_is_what_the_issue_asks_for() -> None:
    entry = yaml.safe_load((REPOSITORY / "recipes" / "comparisons.yaml").read_text())["map"]
    quick = entry.pop("quick")
    comparison = check_comparison(entry, "map")
    assert len(comparison.worlds) == 25
    assert "q0.3-h25" in [world.name for world in comparison.worlds]
    assert len(arms_of(comparison)) == 25 * 6
    assert Arm("keep-all", 0, "q0.1-h8").name == "keep-all-s0-q0.1-h8"
    assert len(check_comparison(entry | quick, "map").worlds) == 4
