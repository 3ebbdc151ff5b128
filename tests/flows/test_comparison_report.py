"""Claims, search costs and the funnel on runs whose numbers are known by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from flows.comparison.arms import Arm
from flows.comparison.catalogue import BY_NAME
from flows.comparison.claims import ClaimResult, find
from flows.comparison.entries import Comparison
from flows.comparison.page import contents, interval, rendering
from flows.comparison.runs import Evidence, Run, Trial
from flows.comparison.search_costs import calls_to_cover, covered
from flows.comparison.statistics import Interval
from flows.comparison.tables import over
from flows.reporting.funnel import fates, funnel
from flows.reporting.genealogy import searches
from flows.reporting.rendering import cell, number
from p2o_core.schemas import write_record, write_rows
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Completion, Judged, Problem, Template, TemplateSearch, VerdictStatus
from p2o_core.update_report import RATIO_EDGES, IterationUpdate
from tests.platform.workspace import REPOSITORY

PROBLEMS = [Problem(f"{tier}-{i}", "q", "1", tier, "heldout") for tier in ("easy", "hard", "ood") for i in range(4)]
BUDGET = 1000
UPDATE = IterationUpdate(
    status="no_signal",
    groups=1,
    groups_with_signal=0,
    rollouts_trained=0,
    planned_steps=0,
    steps=0,
    metrics={},
    template_ratios=[0] * (len(RATIO_EDGES) - 1),
    optimizer_steps=0,
    templated_solve_rate=0.0,
    templated_tokens=0,
    reused=0,
    entropy=0.5,
    skills=None,
)


def judged(rewards: dict[str, list[float]]) -> list[Judged]:
    return [
        Judged(problem, sample, VerdictStatus.CORRECT if reward else VerdictStatus.WRONG, reward, "")
        for problem, values in rewards.items()
        for sample, reward in enumerate(values)
    ]


def cumulative(tokens: int) -> dict[str, int]:
    """Of a row: as many prompt tokens as generated ones."""
    return {"tokens/cumulative": tokens, "tokens/with_prompts": 2 * tokens}


def write_run(
    folder: Path,
    arm: Arm,
    solved: list[dict[str, int]],
    tokens: int,
    all_fail: float,
    problems: list[Problem] = PROBLEMS,
) -> Run:
    """A run whose evaluation after each iteration solves that many of the four problems of each tier."""
    rows = []
    for iteration, counts in enumerate(solved):
        place = folder / arm.name / str(iteration)
        place.mkdir(parents=True)
        right = {p.id: float(int(p.id.split("-")[1]) < counts[p.difficulty]) for p in problems}
        write_rows(place / "judgements.parquet", judged({id_: [reward] for id_, reward in right.items()}), Judged)
        row = {f"accuracy/{tier}": count / 4 for tier, count in counts.items()}
        trained = {"train/all_fail": all_fail} if iteration else {}
        rows.append({"iteration": iteration, **cumulative(tokens * iteration), **row, **trained})
    return Run(arm, folder / arm.name, rows)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """P²O solves 3 of 4 hard problems after 4 iterations, with templates in the gradient 1, GRPO none. GRPO gets its
    last easy problem after two iterations of 100 tokens; P²O has as much after one of 250."""
    start = {"easy": 3, "hard": 0, "ood": 0}
    ends = {
        "p2o": ([start, *[start | {"hard": 1}] * 3, start | {"hard": 3, "ood": 2}], 250, 0.1),
        "p2o-no-distillation": ([start, *[start | {"hard": 1}] * 4], 250, 0.5),
        "grpo": ([start, start, *[start | {"easy": 4}] * 8], 100, 0.6),
        "grpo-2x": ([start, start | {"easy": 4, "hard": 1}], 900, 0.5),
    }
    runs = {Arm(arm, s): write_run(tmp_path, Arm(arm, s), *spec) for arm, spec in ends.items() for s in range(5)}
    comparison = Comparison(recipe=Path("params.yaml"), arms=tuple(ends), budget_tokens=BUDGET, max_iterations=9)
    return Evidence(comparison, tmp_path, runs, {("", 0): PROBLEMS})


def finding(evidence: Evidence, name: str) -> ClaimResult:
    return find(BY_NAME[name], evidence)


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [
        ("V1", 3 / 4, True),
        ("V2", 2 / 4, False),  # four problems: the interval over problems still holds 0
        ("V3", 2 / 4, False),
        ("V4", 1 - 1 / 3, False),
        ("V5", 0.1 / 0.6, True),
        ("S9", 250 / 200, False),
    ],
)
def test_claim(evidence: Evidence, name: str, value: float, reached: bool) -> None:
    found = finding(evidence, name)
    assert found.interval is not None
    assert found.interval.value == pytest.approx(value)
    assert found.reached is reached, found.verdict
    assert found.seeds == 5
    assert found.to_json()["reached"] is reached


def test_claims_are_of_the_last_iteration_within_the_budget(evidence: Evidence) -> None:
    found = finding(evidence.within(750), "V1")
    assert found.interval is not None
    assert found.interval.value == pytest.approx(1 / 4)


def test_what_never_happens_counts_as_the_whole_budget_and_is_not_reached(evidence: Evidence) -> None:
    never = {
        arm: Run(
            arm, run.folder, run.rows[:1] + [r | {"accuracy/hard": 0.0, "accuracy/ood": 0.0} for r in run.rows[1:]]
        )
        if arm.arm == "p2o"
        else run
        for arm, run in evidence.runs.items()
    }
    found = finding(Evidence(evidence.comparison, evidence.workspace, never, evidence.problems), "S9")
    assert found.interval is not None
    assert found.interval.value == pytest.approx(BUDGET / 200)
    assert "in 5 of 5 seeds not within the budget" in found.verdict


def test_comparisons_are_paired_and_few_seeds_give_no_verdict(evidence: Evidence) -> None:
    fewer = {arm: run for arm, run in evidence.runs.items() if arm.arm != "grpo" or arm.seed in (1, 3)}
    evidence = Evidence(evidence.comparison, evidence.workspace, fewer, evidence.problems)
    assert evidence.trials("p2o", "grpo") == [Trial(0, 1), Trial(0, 3)]
    found = finding(evidence, "V1")
    assert (found.seeds, found.reached) == (2, False)
    assert found.verdict == "2 of at least 5 seeds: not enough for a verdict"
    assert over(evidence, "p2o", "absent") is None
    assert finding(Evidence(evidence.comparison, evidence.workspace, {}, {("", 0): PROBLEMS}), "V1").interval is None


def test_calls_to_cover() -> None:
    scores = {4: (0.0, 0.0, 0.0, 0.0), 30: (0.0, 0.5, 0.5, 0.0), 20: (0.5, 0.25, 0.0, 0.0)}
    templates = [Template(i, f"z{i}", (), row, True, at) for i, (at, row) in enumerate(scores.items())]
    search = TemplateSearch("searched", 1, ["a", "b", "c", "d"], templates)
    assert covered(search, 0.5) == 3 / 4
    assert [calls_to_cover(search, 0.5, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [4, 20, 30, 30, None]


def test_funnel_follows_each_problem(tmp_path: Path) -> None:
    """a is hard, solved under a template, then bare; b is hard and stays so; c is never hard; d was rescued, not seen
    again; e fails bare only after its templated success."""
    bare = [
        {"a": [0, 0], "b": [0, 0], "c": [1, 0], "d": [0, 0], "e": [0, 1]},
        {"a": [0, 1], "b": [0, 0], "c": [0, 1], "e": [0, 0]},
    ]
    templated = [{"a": 1.0, "b": 0.0, "d": 1.0, "e": 1.0}, {}]
    for iteration, (rewards, told) in enumerate(zip(bare, templated, strict=True), start=1):
        folder = tmp_path / "p2o-s0" / str(iteration)
        folder.mkdir(parents=True)
        write_rows(folder / "verdicts.parquet", judged(rewards), Judged)
        write_rows(
            folder / "templated.parquet", [Completion(p, 2, "T", "", (1,), (0.0,), False) for p in told], Completion
        )
        write_rows(folder / "templated_verdicts.parquet", judged({p: [r] for p, r in told.items()}), Judged)
        searched = TemplateSearch("searched" if iteration == 1 else "carried", searched_at=1)
        write_record(folder / "templates.json", searched)
    rows = [{"iteration": i, **cumulative(i)} for i in range(3)]
    run = Run(Arm("p2o", 0), tmp_path / "p2o-s0", rows)
    found = funnel("p2o", fates(run.iterations))
    assert (found.seen, found.hard, found.rescued, found.seen_again, found.solved_bare) == (5, 4, 2, 1, 1)
    assert [search.searched_at for search in searches(run.iterations)] == [1]


def test_numbers_and_texts_in_the_report() -> None:
    assert interval(Interval(1 / 3, 0.25, math.inf), points=False) == "0.33 [0.25, ∞]"
    assert interval(None) == number(None) == number(math.nan) == "–"
    assert cell("") == "*(empty template)*"
    assert cell("a | b `c`\n<script>") == "`a ¦ b ʼcʼ / <script>`"


@pytest.mark.parametrize("arms", [("p2o", "grpo"), ("p2o",), ("grpo-2x", "p2o-no-mask")])
def test_the_report_of_one_s_own_files(tmp_path: Path, arms: tuple[str, ...]) -> None:
    """Benchmarks are the tiers: claims are of all problems and say so; nothing is out of distribution. An evaluation
    that was not due, and a budget that ends within the first iteration, leave gaps, not errors."""
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "mlproject").touch()
    problems = [Problem(f"{tier}-{i}", "q", "1", tier, "heldout") for tier in ("aime24", "mine") for i in range(4)]
    runs = {}
    for arm in (Arm(name, seed) for name in arms for seed in range(2)):
        run = write_run(tmp_path, arm, [{"aime24": 1, "mine": 2}, {"aime24": 2, "mine": 3}], 100, 0.5, problems)
        folder = run.folder / "1"
        write_rows(folder / "verdicts.parquet", judged({"t": [0, 1]}), Judged)
        write_rows(folder / "templated.parquet", [], Completion)
        write_rows(folder / "templated_verdicts.parquet", [], Judged)
        write_rows(folder / "transfer.parquet", [], TemplatedOutcome)
        write_record(folder / "templates.json", TemplateSearch("too_few_hard"))
        write_record(folder / "update.json", UPDATE)
        rows = [*run.rows, {"iteration": 2, **cumulative(150), "train/all_fail": 0.5}]
        shutil.copytree(folder, run.folder / "2")
        write_rows(run.folder / "2" / "judgements.parquet", [], Judged)
        runs[arm] = Run(arm, run.folder, rows[:1] if arm == Arm(arms[-1], 1) else rows)
    comparison = Comparison(recipe=Path("params.yaml"), arms=arms, budget_tokens=200, max_iterations=2)
    evidence = Evidence(comparison, tmp_path, runs, {("", 0): problems})
    content = contents(evidence)
    assert content["tiers"] == ["aime24", "mine"]
    rendered = {name: rendering(name, content) for name in ("report.html", "report.md")}
    for text in rendered.values():
        assert "aime24" in text
        assert "hard problems" not in text.split("Where P²O stops helping")[0]
        assert "over GRPO, all" in text
    if arms == ("p2o", "grpo"):
        (v1,) = [found for found in content["findings"] if found.claim.name == "V1"]
        assert v1.interval.value == pytest.approx(1 / 8)  # equal with seed 0, 5 of 8 over 3 of 8 with seed 1
        (v3,) = [found for found in content["findings"] if found.claim.name == "V3"]
        assert "tier `ood`" in v3.verdict
        json.dumps([found.to_json() for found in content["findings"]], allow_nan=False)
