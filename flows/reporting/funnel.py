"""What became of each training problem: failed bare, solved under a template, solved bare afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import read_rows
from p2o_core.types import Judged


@dataclass
class Fate:
    """One training problem. Iterations, 0 where it did not come to that."""

    problem_id: str
    failed: int = 0
    """The last one in which all bare rollouts failed, before the rescue if there was one."""
    rescued: int = 0
    """The first one after a failure, or the same, in which a templated rollout was right."""
    again: int = 0
    """The first one after the rescue that drew it bare."""
    solved: int = 0
    """The first one after the rescue in which a bare rollout was right."""


@dataclass(frozen=True)
class Funnel:
    """Training problems, those of all runs together; each number counts those of the one before it."""

    arm: str
    seen: int
    hard: int
    """All bare rollouts failed at some time."""
    rescued: int
    """Solved under a template after that, by at least one templated rollout."""
    seen_again: int
    """Bare rollouts were drawn again in a later iteration."""
    solved_bare: int
    """At least one of those bare rollouts was right."""


def fates(folders: Sequence[Path]) -> list[Fate]:
    """Of every problem that was drawn, by first appearance. ``folders`` are a run's iterations from 1 on."""
    found: dict[str, Fate] = {}
    for folder in folders:
        iteration = int(folder.name)
        for problem, rewards in rewards_by_problem(read_rows(folder / "verdicts.parquet", Judged)).items():
            _after_bare(found.setdefault(problem, Fate(problem)), iteration, any(rewards))
        for verdict in read_rows(folder / "templated_verdicts.parquet", Judged):
            fate = found.get(verdict.problem_id)
            if verdict.reward > 0 and fate is not None and fate.failed and not fate.rescued:
                fate.rescued = iteration
    return list(found.values())


def _after_bare(fate: Fate, iteration: int, right: bool) -> None:
    if fate.rescued:
        fate.again = fate.again or iteration
        fate.solved = fate.solved or iteration * right
    elif not right:
        fate.failed = iteration


def funnel(arm: str, problems: Iterable[Fate]) -> Funnel:
    """Count them."""
    counted = list(problems)
    stages = ("failed", "rescued", "again", "solved")
    return Funnel(arm, len(counted), *(sum(getattr(fate, stage) > 0 for fate in counted) for stage in stages))
