"""What a policy could do before an update, and whether it still can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Skills:
    """Accuracy on the same problems before and after an update."""

    problems: int
    before: float
    after: float

    def lost(self, margin: float) -> bool:
        """More than ``margin`` of accuracy is gone."""
        return self.before - self.after > margin


def solved_before(rewards: Mapping[str, Sequence[float]], limit: int) -> dict[str, float]:
    """At most ``limit`` problems that the first half of the rollouts solves mostly, each with the accuracy of the
    *second* half. Chosen and measured by the same rollouts, their accuracy would be too high (the winner's curse), and
    every update would seem to cost skills.

    >>> solved_before({"a": [1, 1, 1, 0], "b": [0, 0, 1, 1], "c": [1, 1, 1, 1]}, limit=2)
    {'a': 0.5, 'c': 1.0}
    """
    halves = {id_: (values[: len(values) // 2], values[len(values) // 2 :]) for id_, values in rewards.items()}
    solved = {
        id_: sum(rest) / len(rest) for id_, (first, rest) in halves.items() if first and 2 * sum(first) >= len(first)
    }
    return dict(list(solved.items())[:limit])
