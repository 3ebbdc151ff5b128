"""The report's tables: arms, difficulty sweep, cost of searching, rescue funnel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from flows.comparison.arms import Arm, arm_experiment
from flows.comparison.catalogue import BASELINE, method_of
from flows.comparison.measurements import search_tokens
from flows.comparison.runs import WITH_PROMPTS, Evidence, Run
from flows.comparison.statistics import (
    Interval,
    bootstrap_mean,
    difference,
    effect_size,
    overall_mean,
    paired_bootstrap,
)
from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import read_record, read_rows
from p2o_core.types import Completion, Judged, TemplateSearch
from tasks.running.layout import home


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
    worlds = {"": dict[str, Any]()} | {world.name: world.settings for world in evidence.comparison.sweep}
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


@dataclass(frozen=True)
class SearchSummary:
    """What an arm's searches took and found; means over searches and seeds."""

    arm: str
    searches: float
    """A run."""
    metric_calls: float
    tokens: float
    cover: float
    """Share of dev instances that some kept template solves."""
    best_score: float
    raced_out: float
    first_calls: float | None
    """Metric calls of the first search to the cover that every arm's first search reaches (same policy, same hard
    set, so these compare one to one)."""
    later_half: float
    """Share of the later searches that covered half of their dev set."""
    later_calls: float | None
    """Metric calls these needed for it."""


def search_costs(evidence: Evidence) -> list[SearchSummary]:
    """Every arm that searches with gepa."""
    found = {arm: [searches(run) for run in evidence.of(arm, evidence.trials(arm))] for arm in evidence.arms}
    found = {arm: runs for arm, runs in found.items() if any(runs)}
    levels = {arm: _solved_at(evidence, arm) for arm in found}
    targets = [_common_cover(firsts, levels) for firsts in _first_searches(found)]
    return [_summarise_searches(arm, runs, levels[arm], targets) for arm, runs in found.items()]


def _common_cover(firsts: dict[str, TemplateSearch], levels: dict[str, float]) -> float:
    """The share of dev instances that every first search covered, of those that covered any."""
    covers = [covered(first, levels[arm]) for arm, first in firsts.items()]
    return min((cover for cover in covers if cover > 0), default=math.inf)


def _first_searches(found: dict[str, list[list[TemplateSearch]]]) -> Iterator[dict[str, TemplateSearch]]:
    """For every seed all arms have: arm to its first search."""
    for index in range(min((len(runs) for runs in found.values()), default=0)):
        yield {arm: runs[index][0] for arm, runs in found.items() if runs[index]}


def searches(run: Run) -> list[TemplateSearch]:
    """The results of the run's searches, in order."""
    results = (
        read_record(run.folder / str(row["iteration"]) / "templates.json", TemplateSearch) for row in run.rows[1:]
    )
    return [result for result in results if result.status == "searched"]


def _summarise_searches(
    arm: str, runs: list[list[TemplateSearch]], solved_at: float, targets: Sequence[float]
) -> SearchSummary:
    every = [search for run in runs for search in run]
    first = [calls_to_cover(run[0], solved_at, target) for run, target in zip(runs, targets, strict=False) if run]
    later = [calls_to_cover(search, solved_at, 0.5) for run in runs for search in run[1:]]
    reached = [calls for calls in later if calls is not None]
    known = [calls for calls in first if calls is not None]
    return SearchSummary(
        arm=arm,
        searches=len(every) / len(runs),
        metric_calls=mean(search.cost.metric_calls for search in every),
        tokens=mean(search.cost.tokens for search in every),
        cover=mean(covered(search, solved_at) for search in every),
        best_score=mean(max(t.mean_score for t in search.templates) for search in every),
        raced_out=mean(search.cost.raced_out for search in every),
        first_calls=mean(known) if known else None,
        later_half=len(reached) / len(later) if later else 0.0,
        later_calls=mean(reached) if reached else None,
    )


def covered(search: TemplateSearch, solved_at: float) -> float:
    """Share of the dev instances that some candidate solves; the kept templates solve the same ones."""
    solved = {i for t in search.templates for i, score in enumerate(t.scores) if score >= solved_at}
    return len(solved) / len(search.dev_ids)


def calls_to_cover(search: TemplateSearch, solved_at: float, share: float) -> int | None:
    """Metric calls after which the candidates known by then solve this share of the dev instances together.

    >>> from p2o_core.types import Template
    >>> templates = [Template(0, "", (), (0.0, 0.0), True, found_at=4), Template(1, "z", (0,), (1.0, 0.0), True, 9)]
    >>> calls_to_cover(TemplateSearch("searched", 1, ["a", "b"], templates), 1.0, 0.5)
    9
    """
    solved: set[int] = set()
    for template in sorted(search.templates, key=lambda template: template.found_at):
        solved |= {index for index, score in enumerate(template.scores) if score >= solved_at}
        if len(solved) >= share * len(search.dev_ids):
            return template.found_at
    return None


def _solved_at(evidence: Evidence, arm: str) -> float:
    return arm_experiment(evidence.comparison, Arm(arm, 0), home(evidence.workspace)).evolve.solved_at


@dataclass(frozen=True)
class Funnel:
    """Training problems of an arm over all its seeds; each number counts those of the one before it."""

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


def funnel(evidence: Evidence, arm: str) -> Funnel:
    """The way of the hard problems: hard → solved under a template → solved bare afterwards."""
    counts = [0] * 5
    for run in evidence.of(arm, evidence.trials(arm)):
        for number, problems in enumerate(_funnel_of(run)):
            counts[number] += len(problems)
    return Funnel(arm, *counts)


def _funnel_of(run: Run) -> tuple[set[str], ...]:
    seen: set[str] = set()
    hard: set[str] = set()
    rescued: set[str] = set()
    again: set[str] = set()
    solved: set[str] = set()
    for row in run.rows[1:]:
        folder = run.folder / str(row["iteration"])
        bare = rewards_by_problem(read_rows(folder / "verdicts.parquet", Judged))
        again |= rescued & bare.keys()
        solved |= {problem for problem in rescued & bare.keys() if any(bare[problem])}
        seen |= bare.keys()
        hard |= {problem for problem, rewards in bare.items() if not any(rewards)}
        rescued |= {problem for problem in _templated_successes(folder) if problem in hard}
    return seen, hard, rescued, again, solved


def _templated_successes(folder: Path) -> Iterator[str]:
    completions = read_rows(folder / "templated.parquet", Completion)
    judged = read_rows(folder / "templated_verdicts.parquet", Judged)
    return (c.problem_id for c, verdict in zip(completions, judged, strict=True) if verdict.reward > 0)
