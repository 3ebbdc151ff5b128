"""What the finished runs of a comparison left on disk, by arm, world and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from flows.comparison.arms import DONE, Arm, Comparison, arm_layout, arms_of
from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import BadInput, read_problems, read_rows
from p2o_core.types import Judged, Problem
from tasks.summary import Row, experiment_rows

HARD = "hard"


@dataclass(frozen=True)
class Run:
    """One arm and seed. ``rows`` are those within the token budget: the last one is where arms are compared."""

    arm: Arm
    folder: Path
    rows: list[Row]

    @property
    def last(self) -> int:
        """The last iteration within the budget that was evaluated; iteration 0 always is."""
        return next(row["iteration"] for row in reversed(self.rows) if is_measured(row))

    def within(self, tokens: float) -> Run:
        return replace(self, rows=[row for row in self.rows if row["tokens/cumulative"] <= tokens])

    def heldout(self, iteration: int) -> dict[str, float]:
        """Problem id to its mean reward in the bare evaluation after ``iteration``."""
        judged = read_rows(self.folder / str(iteration) / "judgements.parquet", Judged)
        return {problem: sum(r) / len(r) for problem, r in rewards_by_problem(judged).items()}


def is_measured(row: Row) -> bool:
    """The iteration was due for an evaluation."""
    return any(name.startswith("accuracy/") for name in row)


@dataclass(frozen=True)
class Evidence:
    """Every finished run of a comparison, and the held-out problems of its worlds."""

    comparison: Comparison
    workspace: Path
    runs: dict[Arm, Run]
    problems: dict[str, list[Problem]]
    """World to its held-out problems."""

    def seeds(self, *arms: str, world: str = "") -> list[int]:
        """Seeds for which all these arms are finished: comparisons are paired."""
        present = [{run.seed for run in self.runs if run.arm == arm and run.world == world} for arm in arms]
        return sorted(set.intersection(*present)) if present else []

    def of(self, arm: str, seeds: list[int], world: str = "") -> list[Run]:
        return [self.runs[Arm(arm, seed, world)] for seed in seeds]

    def rewards(
        self, arm: str, seeds: list[int], tier: str | None, *, world: str = "", before: bool = False
    ) -> np.ndarray:
        """[S, P] mean reward of every held-out problem of a tier (all for None): at the end of the budget, or before
        training."""
        ids = [problem.id for problem in self.problems.get(world, ()) if tier in (None, problem.difficulty)]
        heldout = (run.heldout(0 if before else run.last) for run in self.of(arm, seeds, world))
        return np.array([[rewards[id_] for id_ in ids] for rewards in heldout])

    def focus(self, world: str = "") -> str | None:
        """The tier that arms are compared on: hard, or all problems (None) where a user's own have no such tier."""
        return HARD if any(problem.difficulty == HARD for problem in self.problems.get(world, ())) else None

    @property
    def trained(self) -> bool:
        """Some run has an iteration within the budget."""
        return any(len(run.rows) > 1 for run in self.runs.values())

    @cached_property
    def arms(self) -> list[str]:
        """Arms of the recipe's own world that have a finished run, in the comparison's order."""
        return [arm for arm in self.comparison.arms if self.seeds(arm)]

    @property
    def budget(self) -> float:
        """Tokens; what the dearest run took where iterations are equal instead."""
        return self.comparison.budget_tokens or max(run.rows[-1]["tokens/cumulative"] for run in self.runs.values())

    def within(self, tokens: float) -> Evidence:
        """The same runs, stopped at a smaller budget."""
        return replace(self, runs={arm: run.within(tokens) for arm, run in self.runs.items()})

    @property
    def tiers(self) -> list[str]:
        """Of the recipe's own world, the micro-world's first."""
        found = {problem.difficulty for problem in self.problems.get("", ())}
        return [tier for tier in (HARD, "ood", "easy") if tier in found] + sorted(found - {HARD, "ood", "easy"})


def gather(comparison: Comparison, workspace: Path) -> Evidence:
    """Read the finished runs of a workspace. Raises BadInput when there is none."""
    runs, problems = {}, {}
    for arm in arms_of(comparison):
        layout = arm_layout(workspace, arm)
        if not (layout.run / DONE).exists():
            continue
        rows = experiment_rows(layout.run, comparison.max_iterations)
        runs[arm] = Run(arm, layout.run, rows).within(comparison.budget_tokens or math.inf)
        if arm.world not in problems:
            problems[arm.world] = read_problems(layout.base / "heldout.parquet")
    if not runs:
        raise BadInput(f"{workspace}: no finished run. Mend: `p2o compare` first.")
    return Evidence(comparison, workspace, runs, problems)
