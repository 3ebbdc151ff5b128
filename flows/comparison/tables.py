"""The report's tables: arms, arms at several budgets, difficulty sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from flows.comparison.catalogue import BASELINE, method_of
from flows.comparison.measurements import search_tokens
from flows.comparison.runs import WITH_PROMPTS, Evidence
from flows.comparison.statistics import (
    Interval,
    bootstrap_mean,
    difference,
    effect_size,
    overall_mean,
    paired_bootstrap,
)


@dataclass(frozen=True)
class ArmSummary:
    """One row of the arm table: means over seeds at the end of the budget."""

    arm: str
    seeds: int
    accuracy: dict[str, Interval]
    """By tier, bare."""
    best_template: float | None
    """On hard problems under the last search's best template, for arms that measure it."""
    iterations: float
    tokens: float
    prompt_tokens: float
    """Of every completion the whole prompt, beside ``tokens``, which are generated."""
    search_share: float
    """Of ``tokens``."""
    all_fail: float
    over_baseline: Interval | None
    effect: float | None
    over_method: Interval | None


def summarise_arms(evidence: Evidence) -> list[ArmSummary]:
    """Every arm of the recipe's own world."""
    return [_summarise(evidence, arm) for arm in evidence.arms]


def _summarise(evidence: Evidence, arm: str) -> ArmSummary:
    seeds = evidence.trials(arm)
    runs = evidence.of(arm, seeds)
    last = [run.rows[-1] for run in runs]
    templated = [value for row in last if (value := _under_best_template(row, evidence.focus())) is not None]
    hard = {tier: evidence.rewards(arm, seeds, tier) for tier in evidence.tiers}
    return ArmSummary(
        arm=arm,
        seeds=len(seeds),
        accuracy={tier: bootstrap_mean(rewards) for tier, rewards in hard.items() if rewards},
        best_template=mean(templated) if templated else None,
        iterations=mean(row["iteration"] for row in last),
        tokens=mean(row["tokens/cumulative"] for row in last),
        prompt_tokens=mean(row[WITH_PROMPTS] - row["tokens/cumulative"] for row in last),
        search_share=mean(search_tokens(run) / max(1, run.rows[-1]["tokens/cumulative"]) for run in runs),
        all_fail=mean(row.get("train/all_fail", math.nan) for row in last),
        over_baseline=over(evidence, arm, BASELINE),
        effect=_effect(evidence, arm, BASELINE),
        over_method=over(evidence, arm, method_of(evidence.comparison)),
    )


def _under_best_template(row: dict[str, Any], tier: str | None) -> float | None:
    """Accuracy on a tier, or the mean of all, where the arm measures it."""
    found = [value for name, value in row.items() if name == f"best_template/{tier}"]
    if tier is None:
        found = [value for name, value in row.items() if name.startswith("best_template/")]
    return mean(found) if found else None


def over(evidence: Evidence, arm: str, other: str, world: str = "") -> Interval | None:
    """How much more of the hard problems (of all, without such a tier) ``arm`` solves; None for itself or without
    common seeds."""
    seeds = evidence.trials(arm, other, world=world)
    if arm == other or not seeds:
        return None
    mine, theirs = (evidence.rewards(name, seeds, evidence.focus(world), world=world) for name in (arm, other))
    return paired_bootstrap(mine, theirs, difference)


def _effect(evidence: Evidence, arm: str, other: str) -> float | None:
    seeds = evidence.trials(arm, other)
    if arm == other or not seeds:
        return None
    effect = effect_size(*(evidence.rewards(name, seeds, evidence.focus()) for name in (arm, other)))
    return effect if math.isfinite(effect) else None


@dataclass(frozen=True)
class BudgetRow:
    """Bare accuracy of one arm on hard problems (on all, without such a tier) at several budgets."""

    arm: str
    runs: int
    accuracy: Sequence[Interval]
    """Budget by budget; what it was before training where no iteration fits."""


def at_budgets(evidence: Evidence, budgets: Sequence[float]) -> list[BudgetRow]:
    """Every arm of the recipe's own world."""
    cuts = [evidence.within(tokens) for tokens in budgets]
    rows = []
    for arm in evidence.arms:
        trials = evidence.trials(arm)
        rewards = [cut.rewards(arm, trials, evidence.focus()) for cut in cuts]
        rows.append(BudgetRow(arm, len(trials), [bootstrap_mean(sample) for sample in rewards]))
    return rows


@dataclass(frozen=True)
class SweepPoint:
    """One world: how far hard problems are out of the bare policy's reach, and what each arm makes of them."""

    world: str
    settings: dict[str, Any]
    before: float
    """Bare accuracy on hard problems before training."""
    after: dict[str, float]
    over_baseline: Interval | None
    seeds: int


def sweep(evidence: Evidence) -> list[SweepPoint]:
    """The recipe's own world among those of the sweep, easiest first."""
    worlds = {"": dict[str, Any]()} | {world.name: world.settings for world in evidence.comparison.worlds}
    method = method_of(evidence.comparison)
    arms = evidence.comparison.sweep_arms or (method, BASELINE)
    points = []
    for world, settings in worlds.items():
        seeds = evidence.trials(*arms, world=world)
        if not seeds:
            continue
        tier = evidence.focus(world)
        before = overall_mean(evidence.rewards(arms[0], seeds, tier, world=world, before=True))
        after = {arm: overall_mean(evidence.rewards(arm, seeds, tier, world=world)) for arm in arms}
        gap = over(evidence, method, BASELINE, world)
        points.append(SweepPoint(world or "recipe", settings, before, after, gap, len(seeds)))
    return sorted(points, key=lambda point: -point.before)
