"""Claims over several bases, at equal tokens with and without prompts, and those on the online search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flows.comparison.arms import Arm, arm_experiment, arm_layout, arms_of
from flows.comparison.catalogue import BY_NAME
from flows.comparison.claims import ClaimResult, find
from flows.comparison.entries import Comparison
from flows.comparison.page import smaller_budgets
from flows.comparison.runs import Evidence, Trial
from flows.comparison.workspace import open_comparison
from p2o_core.schemas import BadInput
from tests.flows.test_comparison_report import PROBLEMS, write_run
from tests.platform.workspace import REPOSITORY

ARMS = ("p2o-online", "once", "once-each", "keep-all", "grpo")
START = {"easy": 3, "hard": 0, "ood": 0}
BUDGET = 1000


def gathered(
    folder: Path, solved: Callable[[Arm], list[int]], tokens: Callable[[Arm], int] = lambda arm: 100
) -> Evidence:
    """Two bases with three seeds each; ``solved`` gives the hard problems of four that are right after each iteration.
    Prompts take as much as what is generated, for templated arms three times that."""
    comparison = Comparison(
        recipe=Path("params.yaml"), arms=ARMS, seeds=3, bases=2, budget_tokens=BUDGET, max_iterations=9
    )
    runs = {}
    for arm in arms_of(comparison):
        run = write_run(folder, arm, [START, *[START | {"hard": n} for n in solved(arm)]], tokens(arm), 0.5)
        read = 1 if arm.arm == "grpo" else 3
        for row in run.rows:
            row["tokens/with_prompts"] = (1 + read) * row["tokens/cumulative"]
            row["tokens/gepa"] = 4 if row["iteration"] else 0
            row["prompt_tokens/gepa"] = 16 if row["iteration"] else 0
        runs[arm] = run.within(BUDGET)
    return Evidence(comparison, folder, runs, {("", base): PROBLEMS for base in range(2)})


def found(evidence: Evidence, name: str) -> ClaimResult:
    return find(BY_NAME[name], evidence)


def test_pairs_are_of_one_base_and_seed(tmp_path: Path) -> None:
    evidence = gathered(tmp_path, lambda arm: [arm.base + (arm.arm == "p2o-online")])
    missing = {arm: run for arm, run in evidence.runs.items() if arm != Arm("grpo", 1, base=1)}
    evidence = replace(evidence, runs=missing)
    trials = evidence.trials("p2o-online", "grpo")
    assert trials == [Trial(0, 0), Trial(0, 1), Trial(0, 2), Trial(1, 0), Trial(1, 2)]
    assert [rewards.shape for rewards in evidence.rewards("grpo", trials, "hard")] == [(3, 4), (2, 4)]
    result = found(evidence, "V6-grpo")
    assert (result.seeds, result.bases) == (5, 2)
    assert result.interval is not None
    assert result.interval.value == pytest.approx(1 / 4)


def test_the_best_control_is_that_of_all_bases_together(tmp_path: Path) -> None:
    """keep-all is best in base 0, once-each in both together: the claim is over once-each in both."""
    hard = {"p2o-online": (4, 4), "once": (0, 0), "once-each": (1, 3), "keep-all": (2, 1), "grpo": (0, 0)}
    result = found(gathered(tmp_path, lambda arm: [hard[arm.arm][arm.base]]), "V8")
    assert result.interval is not None
    assert result.interval.value == pytest.approx(1 - (1 + 3) / 8)
    assert "the best is once-each" in result.statement


def test_the_search_s_share_counts_its_prompts_where_all_do(tmp_path: Path) -> None:
    evidence = gathered(tmp_path, lambda arm: [1, 1])
    generated, whole = found(evidence, "V9-cost"), find(BY_NAME["V9-cost"], evidence.with_prompts("p2o-online"))
    assert generated.interval is not None
    assert whole.interval is not None
    assert generated.interval.value == pytest.approx(4 / 100)
    assert whole.interval.value == pytest.approx((4 + 16) / 400)
    assert generated.reached


@pytest.mark.parametrize(("easy", "collapsed"), [(3, False), (2, False), (1, True)])
def test_a_collapse_is_seen_in_a_single_run(tmp_path: Path, easy: int, collapsed: bool) -> None:
    evidence = gathered(tmp_path, lambda arm: [0])
    arm = Arm("p2o-online", 2, base=1)
    last = evidence.runs[arm].rows[-1] | {"accuracy/easy": easy / 4}
    runs = evidence.runs | {arm: replace(evidence.runs[arm], rows=[evidence.runs[arm].rows[0], last])}
    result = found(replace(evidence, runs=runs), "V6-collapse")
    assert result.interval is not None
    assert result.interval.value == pytest.approx(collapsed / 6)
    assert result.reached is not collapsed


def test_equal_tokens_with_prompts_stop_the_arm_that_reads_more(tmp_path: Path) -> None:
    """At 1,000 generated tokens P²O online has done ten iterations; with prompts, GRPO's ten cost what five cost it."""
    evidence = gathered(tmp_path, lambda arm: [*[1] * 5, *[4] * 5] if arm.arm == "p2o-online" else [0] * 10)
    generated, prompted = (
        found(evidence, "V6-grpo"),
        find(BY_NAME["V6-grpo"], evidence.with_prompts("p2o-online", "grpo")),
    )
    assert generated.interval is not None
    assert prompted.interval is not None
    assert (generated.interval.value, generated.budget) == (1.0, BUDGET)
    assert (prompted.interval.value, prompted.budget) == (1 / 4, 2 * BUDGET)
    again = evidence.with_prompts("p2o-online")
    assert again.runs[Arm("p2o-online", 0)].last == 10, "alone, nothing cuts it short"


def test_claims_at_several_budgets(tmp_path: Path) -> None:
    for name in ("recipes", "params.yaml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    evidence = gathered(tmp_path, lambda arm: [1, 2, 3, 4] if arm.arm == "p2o-online" else [0])
    assert smaller_budgets(evidence) == [250, 500, 750]
    comparison = evidence.comparison.model_copy(
        update={"budgets": (300, 100), "claims": ("V6-grpo",), "arms": ARMS[:1]}
    )
    evidence = replace(evidence, comparison=comparison)
    assert smaller_budgets(evidence) == [100, 300]
    values = [found(evidence.within(tokens), "V6-grpo").to_json()["value"] for tokens in (100, 300, 399, 400)]
    assert values == [1 / 4, 3 / 4, 3 / 4, 1.0]


RECIPE = {
    "recipe": "params.yaml",
    "arms": ["grpo", "mine"],
    "own_arms": {"mine": {"evolve.enabled": False, "rollout.samples": "*2"}, "grpo": {"distill.clip_high": 0.5}},
    "seeds": 1,
    "first_seed": 99,
    "bases": 3,
    "budget_tokens": 100,
    "max_iterations": 2,
    "sweep": [{"name": "gap-2", "settings": {"prepare.hard_lengths": [2], "prepare.ood_lengths": [4]}}],
    "sweep_arms": ["mine"],
    "sweep_seeds": 1,
    "sweep_bases": 2,
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    for name in ("recipes/arms.yaml", "params.yaml", "mlproject"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "data" / "sources").mkdir(parents=True)
    return tmp_path


def opened(clone: Path, **changes: object) -> Path:
    (clone / "recipes" / "comparisons.yaml").write_text(yaml.safe_dump({"two": RECIPE | changes}))
    return open_comparison(clone, "two")


def test_each_base_has_problems_and_seeds_of_its_own(clone: Path) -> None:
    workspace = opened(clone)
    comparison = Comparison.model_validate(RECIPE)
    arms = arms_of(comparison)
    assert [arm.name for arm in arms if arm.arm == "mine"] == [
        *("mine-s99", "mine-s99_b1", "mine-s99_b2"),
        *("mine-s99-gap-2", "mine-s99_b1-gap-2"),
    ]
    experiments = [arm_experiment(comparison, arm, clone) for arm in arms if arm.arm == "mine" and not arm.world]
    assert [experiment.prepare.seed for experiment in experiments] == [0, 1, 2]
    assert len({experiment.seed for experiment in experiments}) == 3, "no draws in common"
    assert experiments[0].rollout.samples == 16
    assert arm_experiment(comparison, arms[0], clone).distill.clip_high == 0.5, "in place of recipes/arms.yaml's"
    bases = {arm_layout(workspace, arm).base for arm in arms}
    assert len(bases) == 5, "three of the recipe's world, two of gap-2"
    stages = yaml.safe_load((workspace / "dvc.yaml").read_text())["stages"]
    assert set(stages["base"]["foreach"]) == {"own", "own_b1", "own_b2", "gap-2", "gap-2_b1"}
    for name, base in stages["base"]["foreach"].items():
        users = [run for run in stages["arm"]["foreach"].values() if run["base"] == base["out"]]
        assert len(users) == (1 if "gap" in name else 2)
        options = base["cmd"].removeprefix("p2o arm base")
        assert all(run["cmd"].endswith(f"--seed 99{options}") for run in users)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": ["V1", "V77"]}, r"field 'claims': there is no claim 'V77'. Mend: one of V1, "),
        ({"arms": ["grpo", "nobody"]}, r"no arm 'nobody'. Mend: one of grpo, mine, p2o, grpo-2x, "),
        ({"bases": 0}, r"field 'bases': .*Mend"),
        ({"budgets": [0]}, r"field 'budgets.0': .*Mend"),
        ({"budgets": [101]}, r"field 'budgets': .*100"),
        ({"arms": [], "sweep_arms": []}, r"comparisons.yaml: two: the entry: .*nothing to run. Mend"),
        ({"seeds": "many"}, r"comparisons.yaml: two: field 'seeds': .*Mend"),
        ({"grid": {"prepare.seed": {}}}, r"field 'grid': .*prepare.seed has no values. Mend"),
        ({"grid": {"prepare.seed": {"A B": 1}}}, r"field 'grid': .*'A B'"),
        ({"grid": {"prepare.seed": {"gap-2": 1}}}, r"the entry: .*more than one world named gap-2"),
        ({"own_arms": {"mine": {"rollout.nothing": 1}}}, r"nothing"),
    ],
)
def test_a_wrong_entry_is_refused_before_anything_is_written(clone: Path, changes: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        opened(clone, **changes)
    assert not (clone / "experiments").exists()
