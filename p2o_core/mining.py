"""Which problems are hard, and how much signal the groups carry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from p2o_core.config import MineConfig
from p2o_core.types import HardSample, Judged


@dataclass(frozen=True)
class Signal:
    """Shares over groups: the mean ``solve_rate``, ``all_fail``, ``all_pass`` and ``zero_signal`` (no variance).

    >>> signal_statistics({"a": [0, 1], "b": [0, 0]})
    Signal(solve_rate=0.25, all_fail=0.5, all_pass=0.0, zero_signal=0.5)
    """

    solve_rate: float
    all_fail: float
    all_pass: float
    zero_signal: float


@dataclass(frozen=True)
class MiningReport(Signal):
    """An iteration's groups and hard set: mining.json. ``near_hard`` of the ``hard`` problems were solved at
    least once and mined all the same; ``remembered`` come from iterations before and are not counted in ``hard``."""

    hard: int
    near_hard: int
    remembered: int
    by_difficulty: Mapping[str, Signal]


def _checked(problem_id: str, rewards: Sequence[float]) -> Sequence[float]:
    if len(rewards) == 0:
        raise ValueError(f"problem {problem_id!r} has no rewards: every problem needs at least one rollout")
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"problem {problem_id!r} has a reward that is NaN or infinite: {list(rewards)}")
    return rewards


def is_near_hard(rewards: Sequence[float]) -> bool:
    """Exactly one of several rollouts has a non-zero reward."""
    return len(rewards) > 1 and sum(reward != 0 for reward in rewards) == 1


def mine_hard(rewards: Mapping[str, Sequence[float]], *, near_hard: bool = True) -> list[str]:
    """Ids of the problems the policy fails: all n rewards zero or, with ``near_hard``, exactly one not.

    Source: the official P²O code. Ids come in input order. A single rollout that succeeded is no near-hard
    sample: it solved its problem.

    Raises:
        ValueError: a problem without rewards, or a reward that is not finite.

    >>> mine_hard({"a": [0, 0], "b": [1, 1], "c": [0, 1]})
    ['a', 'c']
    """
    return [
        problem_id
        for problem_id, values in rewards.items()
        if not any(_checked(problem_id, values)) or (near_hard and is_near_hard(values))
    ]


def signal_statistics(rewards: Mapping[str, Sequence[float]]) -> Signal:
    """Over the groups of rewards. Raises ValueError where there is none."""
    groups = [_checked(problem_id, values) for problem_id, values in rewards.items()]
    if not groups:
        raise ValueError("no groups to mine: the rollout stage produced nothing")

    def share(condition: list[bool]) -> float:
        return sum(condition) / len(condition)

    return Signal(
        solve_rate=sum(sum(group) / len(group) for group in groups) / len(groups),
        all_fail=share([not any(group) for group in groups]),
        all_pass=share([all(reward == 1 for reward in group) for group in groups]),
        zero_signal=share([len(set(group)) == 1 for group in groups]),
    )


def rewards_by_problem(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """Problem id to the rewards of its completions, in order of first appearance."""
    rewards: dict[str, list[float]] = {}
    for row in judged:
        rewards.setdefault(row.problem_id, []).append(row.reward)
    return rewards


def mine(
    rewards: Mapping[str, Sequence[float]], previous: Sequence[HardSample], config: MineConfig, iteration: int
) -> list[HardSample]:
    """The hard set: first the problems of ``previous`` mined within ``config.window`` iterations and not rolled out
    since, then this iteration's from :func:`mine_hard`, whose ``mined_at`` is ``iteration``."""
    remembered = [
        sample
        for sample in previous
        if sample.problem_id not in rewards and sample.mined_at > iteration - config.window
    ]
    hard = [
        HardSample(id_, sum(rewards[id_]) / len(rewards[id_]), near=any(rewards[id_]), mined_at=iteration)
        for id_ in mine_hard(rewards, near_hard=config.near_hard)
    ]
    return [*remembered, *hard]


def mining_report(
    rewards: Mapping[str, Sequence[float]], hard: Sequence[HardSample], difficulty: Mapping[str, str], iteration: int
) -> MiningReport:
    """:func:`signal_statistics` over this iteration's groups, all and by difficulty, and the hard set's sizes."""
    mined = [sample for sample in hard if sample.mined_at == iteration]
    tiers = sorted({difficulty[id_] for id_ in rewards})
    return MiningReport(
        **asdict(signal_statistics(rewards)),
        hard=len(mined),
        near_hard=sum(sample.near for sample in mined),
        remembered=len(hard) - len(mined),
        by_difficulty={
            tier: signal_statistics({id_: r for id_, r in rewards.items() if difficulty[id_] == tier}) for tier in tiers
        },
    )
