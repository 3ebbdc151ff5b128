"""avg@k, pass@k and maj@k."""

from __future__ import annotations

from collections import Counter
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


def maj_at_k(answers: Mapping[str, Sequence[tuple[str, float]]]) -> float:
    """Share of problems whose most frequent answer is right (self-consistency, arXiv 2203.11171).

    Args:
        answers: (the answer that was read, its reward) of each sample. Right answers are one answer whatever their
            form, wrong ones count by their text; samples without an answer do not vote. Ties are shared: with two
            answers equally frequent, one of them right, the problem counts half.
    """
    if not answers:
        raise ValueError("maj@k of no problems")
    total = 0.0
    for samples in answers.values():
        votes = Counter(("right", "") if reward == 1 else ("wrong", text) for text, reward in samples if reward or text)
        if votes:
            most = max(votes.values())
            leaders = [answer for answer, count in votes.items() if count == most]
            total += ("right", "") in leaders and 1 / len(leaders)
    return total / len(answers)
