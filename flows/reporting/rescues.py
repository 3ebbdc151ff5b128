"""Problems that a template rescued, with their answers before, under the template, and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flows.reporting.funnel import Fate
from p2o_core.schemas import read_rows
from p2o_core.types import Completion, Judged, Problem

Judgement = tuple[Completion, Judged]


@dataclass(frozen=True)
class Rescue:
    """One problem's way. ``bare`` is None where it was not solved bare afterwards."""

    problem: Problem
    fate: Fate
    failed: Judgement
    templated: Judgement
    bare: Judgement | None


def rescues(folder: Path, problems: Mapping[str, Problem], fates: Sequence[Fate], limit: int) -> list[Rescue]:
    """Up to ``limit`` rescued problems of the run in ``folder``, those first that were solved bare later, from early
    and late in the run alike."""
    rescued = [fate for fate in fates if fate.rescued and fate.problem_id in problems]
    solved = _spread([fate for fate in rescued if fate.solved], limit)
    chosen = solved + _spread([fate for fate in rescued if not fate.solved], limit - len(solved))

    @cache  # a table of rollouts is read once
    def judged(iteration: int, prefix: str) -> dict[str, list[Judgement]]:
        return _by_problem(folder / str(iteration), prefix)

    def first(fate: Fate, iteration: int, prefix: str, right: bool) -> Judgement:
        return next(pair for pair in judged(iteration, prefix)[fate.problem_id] if (pair[1].reward > 0) is right)

    return [
        Rescue(
            problems[fate.problem_id],
            fate,
            failed=first(fate, fate.failed, "", right=False),
            templated=first(fate, fate.rescued, "templated", right=True),
            bare=first(fate, fate.solved, "", right=True) if fate.solved else None,
        )
        for fate in chosen
    ]


def _spread(fates: Sequence[Fate], limit: int) -> list[Fate]:
    """So many, in equal steps through the run."""
    ordered = sorted(fates, key=lambda fate: fate.rescued)
    count = min(limit, len(ordered))
    return [ordered[index * len(ordered) // count] for index in range(count)]


def _by_problem(folder: Path, prefix: str) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for completion, verdict in _judgements(folder, prefix):
        found.setdefault(completion.problem_id, []).append((completion, verdict))
    return found


def _judgements(folder: Path, prefix: str) -> Iterator[Judgement]:
    """Completions with their verdicts; ``prefix`` is ``templated`` or blank for the bare ones."""
    completions, verdicts = ("templated", "templated_verdicts") if prefix else ("rollouts", "verdicts")
    rows = read_rows(folder / f"{completions}.parquet", Completion)
    return zip(rows, read_rows(folder / f"{verdicts}.parquet", Judged), strict=True)
