"""Racing: a candidate far behind the best stops being scored half way through the dev set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gepa.core.adapter import EvaluationBatch

from p2o_core.types import Problem

Item = tuple[dict[str, str], list[Problem]]
Evaluate = Callable[[list[Item]], list[EvaluationBatch]]
BEHIND = 0.5
"""A candidate whose mean is below this share of the best one's, on the same instances, is behind."""


class Race:
    """Successive halving's idea (arXiv 1502.07943) with two rungs: half of the dev set, then all of it.

    A candidate is dropped if it is behind the best candidate so far *and* wins no instance seen. The second condition
    keeps templates that only one kind of problem needs: they have a low mean. Instances without a score count as 0, so
    a dropped candidate can neither join the cover for them nor look better than it is.
    """

    def __init__(self, dev: Sequence[Problem]) -> None:
        self.dev_ids = [problem.id for problem in dev]
        self.best: list[float] = []
        self.front = [0.0] * len(self.dev_ids)
        self.dropped = 0

    def is_race(self, items: Sequence[Item]) -> bool:
        """Return whether these items are scored on the whole dev set."""
        return all([problem.id for problem in problems] == self.dev_ids for _, problems in items)

    def run(self, items: list[Item], evaluate: Evaluate) -> list[EvaluationBatch]:
        """Score the items. Candidates that reach the end get the same results as from ``evaluate(items)``."""
        half = len(self.dev_ids) // 2
        results = evaluate([(candidate, problems[:half]) for candidate, problems in items])
        running = [index for index, result in enumerate(results) if self._runs_on(result.scores)]
        rest = evaluate([(items[i][0], items[i][1][half:]) for i in running]) if running else []
        for index, second in zip(running, rest, strict=True):
            results[index] = _join(results[index], second)
            self._note(results[index].scores)
        for index in set(range(len(items))) - set(running):
            self.dropped += 1
            results[index] = _padded(results[index], items[index][1][half:])
        return results

    def _runs_on(self, scores: list[float]) -> bool:
        if not self.best:
            return True
        wins = any(score > front for score, front in zip(scores, self.front, strict=False))
        return wins or sum(scores) >= BEHIND * sum(self.best[: len(scores)])

    def _note(self, scores: list[float]) -> None:
        self.front = [max(pair) for pair in zip(self.front, scores, strict=True)]
        if sum(scores) > sum(self.best):
            self.best = scores


def _join(first: EvaluationBatch, second: EvaluationBatch) -> EvaluationBatch:
    return EvaluationBatch(
        outputs=first.outputs + second.outputs,
        scores=first.scores + second.scores,
        trajectories=(first.trajectories or []) + (second.trajectories or []),
    )


def _padded(first: EvaluationBatch, missing: Sequence[Problem]) -> EvaluationBatch:
    blank = [{"question": problem.question, "answer": "", "feedback": "not scored"} for problem in missing]
    return _join(first, EvaluationBatch(outputs=[""] * len(missing), scores=[0.0] * len(missing), trajectories=blank))
