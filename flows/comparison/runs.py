"""What the finished runs of a comparison left on disk, by arm, world, base and seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from flows.comparison.arms import DONE, Arm, arm_layout, arms_of
from flows.comparison.entries import Comparison
from flows.comparison.statistics import Sample
from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import BadInput, read_problems, read_rows
from p2o_core.types import Judged, Problem
from tasks.summary import Row, experiment_rows

HARD = "hard"

Measure = Literal["tokens/cumulative", "tokens/with_prompts"]
"""What a budget counts, a column of the runs' rows: generated tokens, or these and the prompts'."""
GENERATED: Measure = "tokens/cumulative"
WITH_PROMPTS: Measure = "tokens/with_prompts"


class Trial(NamedTuple):
    """What arms are paired by: they start from one base and draw from one seed."""

    base: int
    seed: int


@dataclass(frozen=True)
class Run:
    """One arm, base and seed. ``rows`` are those within the token budget: the last one is where arms are compared.
    ``all_rows`` are beyond it too, blank where none is."""

    arm: Arm
    folder: Path
    rows: list[Row]
    all_rows: list[Row] = field(default_factory=list)

    @property
    def iterations(self) -> list[Path]:
        """The folders of the iterations within the budget, from 1 on."""
        return [self.folder / str(row["iteration"]) for row in self.rows[1:]]

    @property
    def last(self) -> int:
        """The last iteration within the budget that was evaluated; iteration 0 always is."""
        return next(row["iteration"] for row in reversed(self.rows) if is_measured(row))

    def within(self, tokens: float, measure: Measure = GENERATED) -> Run:
        """The run, stopped at this budget."""
        rows = self.all_rows or self.rows
        return replace(self, rows=[row for row in rows if row[measure] <= tokens], all_rows=rows)

    def heldout(self, iteration: int) -> dict[str, float]:
        """Problem id to its mean reward in the bare evaluation after ``iteration``."""
        judged = read_rows(self.folder / str(iteration) / "judgements.parquet", Judged)
        return {problem: sum(r) / len(r) for problem, r in rewards_by_problem(judged).items()}


def is_measured(row: Row) -> bool:
    """The iteration was due for an evaluation."""
    return any(name.startswith("accuracy/") for name in row)


@dataclass(frozen=True)
class Evidence:
    """Every finished run of a comparison, and the held-out problems of its worlds and bases. ``measure`` is what its
    budget counts."""

    comparison: Comparison
    workspace: Path
    runs: dict[Arm, Run]
    problems: dict[tuple[str, int], list[Problem]]
    """World and base to their held-out problems."""
    measure: Measure = GENERATED
    cut: float | None = None
    """The budget where it is another one than the comparison's."""

    def trials(self, *arms: str, world: str = "") -> list[Trial]:
        """For which all these arms are finished, base by base: comparisons are paired."""
        present = [
            {Trial(run.base, run.seed) for run in self.runs if run.arm == arm and run.world == world} for arm in arms
        ]
        return sorted(set.intersection(*present)) if present else []

    def of(self, arm: str, trials: list[Trial], world: str = "") -> list[Run]:
        return [self.runs[Arm(arm, trial.seed, world, trial.base)] for trial in trials]

    def rewards(
        self, arm: str, trials: list[Trial], tier: str | None, *, world: str = "", before: bool = False
    ) -> Sample:
        """Base by base [S, P]: mean reward of every held-out problem of a tier (all for None), at the end of the
        budget or before training. Blank where no problem is of that tier."""

        def of_base(base: int, runs: list[Run]) -> np.ndarray:
            ids = [problem.id for problem in self.problems.get((world, base), ()) if tier in (None, problem.difficulty)]
            heldout = (run.heldout(0 if before else run.last) for run in runs)
            return np.array([[rewards[id_] for id_ in ids] for rewards in heldout])

        found = [of_base(base, runs) for base, runs in by_base(self.of(arm, trials, world))]
        return found if all(rewards.size for rewards in found) else []

    def numbers(self, arm: str, trials: list[Trial], number: Callable[[Run], float]) -> Sample:
        """Base by base [S, 1]: one number a run."""
        return [np.array([[number(run)] for run in runs]) for _, runs in by_base(self.of(arm, trials))]

    def focus(self, world: str = "") -> str | None:
        """The tier that arms are compared on: hard, or all problems (None) where a user's own have no such tier."""
        tiers = {p.difficulty for (name, _), problems in self.problems.items() if name == world for p in problems}
        return HARD if HARD in tiers else None

    @property
    def trained(self) -> bool:
        """Some run has an iteration within the budget."""
        return any(len(run.rows) > 1 for run in self.runs.values())

    @cached_property
    def arms(self) -> list[str]:
        """Arms of the recipe's own world that have a finished run, in the comparison's order."""
        return [arm for arm in self.comparison.arms if self.trials(arm)]

    @property
    def budget(self) -> float:
        """Tokens; what the dearest run took where iterations are equal instead."""
        if self.cut is not None:
            return self.cut
        return self.comparison.budget_tokens or max(run.rows[-1][self.measure] for run in self.runs.values())

    def within(self, tokens: float) -> Evidence:
        """The same runs, stopped at another budget."""
        runs = {arm: run.within(tokens, self.measure) for arm, run in self.runs.items()}
        return replace(self, runs=runs, cut=tokens)

    def with_prompts(self, *arms: str) -> Evidence:
        """The runs at equal tokens, prompts included: stopped at the most that every run of these arms came to within
        the comparison's budget of generated tokens and the iteration that goes beyond it."""
        compared = [run for run in self.runs.values() if run.arm.arm in arms and not run.arm.world]
        reached = min(((run.all_rows or run.rows)[-1][WITH_PROMPTS] for run in compared), default=0)
        return replace(self, measure=WITH_PROMPTS).within(reached)

    @property
    def tiers(self) -> list[str]:
        """Of the recipe's own world, the micro-world's first."""
        found = {p.difficulty for (world, _), problems in self.problems.items() if not world for p in problems}
        return [tier for tier in (HARD, "ood", "easy") if tier in found] + sorted(found - {HARD, "ood", "easy"})


def by_base(runs: list[Run]) -> list[tuple[int, list[Run]]]:
    """Runs in the order of :meth:`Evidence.trials`, in parts that share a base."""
    return [(base, list(part)) for base, part in groupby(runs, key=lambda run: run.arm.base)]


def gather(comparison: Comparison, workspace: Path) -> Evidence:
    """Read the finished runs of a workspace. Raises BadInput when there is none."""
    runs: dict[Arm, Run] = {}
    problems: dict[tuple[str, int], list[Problem]] = {}
    for arm in arms_of(comparison):
        layout = arm_layout(workspace, arm)
        if not (layout.run / DONE).exists():
            continue
        rows = experiment_rows(layout.run, comparison.max_iterations)
        runs[arm] = Run(arm, layout.run, rows).within(comparison.budget_tokens or math.inf)
        if (arm.world, arm.base) not in problems:
            problems[arm.world, arm.base] = read_problems(layout.base / "heldout.parquet")
    if not runs:
        raise BadInput(f"{workspace}: no finished run. Mend: `p2o compare` first.")
    return Evidence(comparison, workspace, runs, problems)
