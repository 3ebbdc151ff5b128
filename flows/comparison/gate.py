"""The gate before ``champion``: a candidate against the champion, on the same held-out problems, paired by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flows.comparison.statistics import difference, paired_bootstrap
from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import read_rows
from p2o_core.types import Judged, Problem

Verdict = Literal["better", "worse", "undecided"]
WHOLE = "all"


@dataclass(frozen=True)
class Measure:
    """Mean accuracy of both on some problems, and their difference with its 95 % interval."""

    problems: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Promotion:
    """promotion.json: who was compared with whom, on what, and what it came to. ``measures`` has all held-out problems
    (``all``) and each difficulty; ``against`` names the champion, or the candidate's own base where there is none."""

    candidate: str
    against: str
    samples: int
    heldout: str
    measures: Mapping[str, Measure]
    verdict: Verdict

    def __str__(self) -> str:
        """One line for people, in points of accuracy."""
        whole = self.measures[WHOLE]
        return (
            f"{self.verdict}: {100 * whole.candidate:.1f} % against {100 * whole.champion:.1f} % of {self.against}, "
            f"{100 * whole.difference:+.1f} points [{100 * whole.low:+.1f}, {100 * whole.high:+.1f}] on "
            f"{whole.problems} held-out problems × {self.samples}{self._lost()}"
        )

    def _lost(self) -> str:
        lost = [
            f"{tier} {100 * m.difference:+.1f}" for tier, m in self.measures.items() if tier != WHOLE and m.high < 0
        ]
        return f"; surely lost: {', '.join(lost)}" if lost else ""


def judge(
    problems: Sequence[Problem], candidate: Mapping[str, Sequence[float]], champion: Mapping[str, Sequence[float]]
) -> tuple[dict[str, Measure], Verdict]:
    """Compare two policies' rewards by problem.

    ``better``: the interval of the difference over all problems lies above 0, and no difficulty's below. ``worse``:
    that over all problems, or of a difficulty, lies below 0. The problems are resampled, both policies alike; the runs
    that made the policies are given, not sampled.

    Raises:
        ValueError: a problem has no rewards.
    """
    tiers = {WHOLE: [problem.id for problem in problems]}
    for problem in problems:
        tiers.setdefault(problem.difficulty or "none", []).append(problem.id)
    measures = {tier: _measure(ids, candidate, champion) for tier, ids in tiers.items()}
    if any(measure.high < 0 for measure in measures.values()):
        return measures, "worse"
    return measures, "better" if measures[WHOLE].low > 0 else "undecided"


def _measure(
    ids: Sequence[str], candidate: Mapping[str, Sequence[float]], champion: Mapping[str, Sequence[float]]
) -> Measure:
    if missing := [id_ for id_ in ids if not candidate.get(id_) or not champion.get(id_)]:
        raise ValueError(f"no rewards for {missing[:3]}")
    ours, theirs = (np.array([[np.mean(rewards[id_]) for id_ in ids]]) for rewards in (candidate, champion))
    interval = paired_bootstrap([ours], [theirs], difference)
    return Measure(len(ids), float(ours.mean()), float(theirs.mean()), interval.value, interval.low, interval.high)


def read_rewards(folder: Path) -> dict[str, list[float]]:
    """By problem, of an evaluation's folder. Raises BadInput."""
    return {
        id_: list(rewards)
        for id_, rewards in rewards_by_problem(read_rows(folder / "judgements.parquet", Judged)).items()
    }
