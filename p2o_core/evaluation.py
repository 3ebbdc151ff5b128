"""avg@k and pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb


def avg_at_k(rewards: Mapping[str, Sequence[float]]) -> float:
    """Mean over problems of the mean reward of their k samples; the k may differ between problems."""
    if not rewards:
        raise ValueError("avg@k of no problems")
    return sum(sum(samples) / len(samples) for samples in rewards.values()) / len(rewards)


def pass_at_k(rewards: Mapping[str, Sequence[float]], k: int) -> float:
    """Unbiased pass@k from n >= k samples a problem: ``1 - C(n - c, k) / C(n, k)`` (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: a problem has fewer than k samples.
    """
    if not rewards:
        raise ValueError("pass@k of no problems")
    total = 0.0
    for problem_id, samples in rewards.items():
        n, correct = len(samples), sum(reward == 1 for reward in samples)
        if n < k:
            raise ValueError(f"pass@{k} needs at least {k} samples a problem; {problem_id!r} has {n}")
        total += 1.0 - comb(n - correct, k) / comb(n, k)
    return total / len(rewards)
