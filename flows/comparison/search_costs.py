"""What searches cost and found, arm by arm: those with a budget of their own, those online, and what transfers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from flows.comparison.arms import Arm, arm_experiment
from flows.comparison.measurements import search_tokens
from flows.comparison.runs import GENERATED, Evidence, Run
from flows.reporting.genealogy import archive, evaluations, generations, searches
from p2o_core.config import EvolveConfig
from p2o_core.transfer import transfer_weight
from p2o_core.types import TemplateSearch
from tasks.running.layout import home

TAU = 0.3
"""Of the transfer weights that the report shows: HiLL's (arXiv 2604.00698), whatever an arm's search weighs by."""


def search_config(evidence: Evidence, arm: str) -> EvolveConfig:
    """How an arm searches."""
    return arm_experiment(evidence.comparison, Arm(arm, 0), home(evidence.workspace)).evolve


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
    """Every arm whose searches have a budget of their own."""
    configs = {arm: search_config(evidence, arm) for arm in evidence.arms}
    found = {
        arm: [searches(run.iterations) for run in evidence.of(arm, evidence.trials(arm))]
        for arm, config in configs.items()
        if config.enabled and config.search == "gepa"
    }
    found = {arm: runs for arm, runs in found.items() if any(runs)}
    levels = {arm: configs[arm].solved_at for arm in found}
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


@dataclass(frozen=True)
class OnlineSummary:
    """What an arm's online search took and found; means over its runs."""

    arm: str
    searches: float
    """Iterations that wrote templates."""
    reflections: float | None
    """Times that a model was asked for a template; None where sentences of a pool are put together instead."""
    written: float
    kept: float
    retired: float
    generations: float
    """Of the longest line of templates, each a child of the one before."""
    rollouts: float
    """Templated training rollouts that count as evaluations."""
    tokens: float
    """Generated for the search alone."""
    share: float
    """Of all tokens."""


def online_costs(evidence: Evidence) -> list[OnlineSummary]:
    """Every arm whose training rollouts are its evaluations."""
    found = []
    for arm in evidence.arms:
        config = search_config(evidence, arm)
        runs = evidence.of(arm, evidence.trials(arm))
        known = [(run, archive(run.iterations)) for run in runs]
        if config.enabled and config.search == "online" and any(last for _, last in known):
            found.append(_summarise_online(arm, [(run, last or TemplateSearch()) for run, last in known]))
    return found


def _summarise_online(arm: str, known: Sequence[tuple[Run, TemplateSearch]]) -> OnlineSummary:
    runs, archives = [run for run, _ in known], [last for _, last in known]
    asked = [sum(row.get("gepa_reflection_calls", 0) for row in run.rows) for run in runs]
    return OnlineSummary(
        arm=arm,
        searches=mean(len({template.found_at for template in last.templates}) for last in archives),
        reflections=mean(asked) if any(asked) else None,
        written=mean(len(last.templates) for last in archives),
        kept=mean(len(last.kept) for last in archives),
        retired=mean(len(last.templates) - len(last.kept) for last in archives),
        generations=mean(generations(last.templates) for last in archives),
        rollouts=mean(evaluations(last.templates) for last in archives),
        tokens=mean(search_tokens(run) for run in runs),
        share=mean(search_tokens(run) / max(1, run.rows[-1][GENERATED]) for run in runs),
    )


@dataclass(frozen=True)
class TransferSummary:
    """How much of what an arm's templates bring bare training can take over; means over runs. Δ is the mean log
    template ratio of right templated rollouts, weights are exp(min(Δ, 0) / :data:`TAU`). None: not measured."""

    arm: str
    first: float
    """Δ in the first iteration that measured it."""
    last: float
    first_weight: float
    last_weight: float
    dev_rate: float | None
    """Of the template set, where it was scored on fresh problems too."""
    fresh_rate: float | None

    @property
    def selection_bias(self) -> float | None:
        """What choosing by dev scores feigned."""
        return None if self.dev_rate is None or self.fresh_rate is None else self.dev_rate - self.fresh_rate


def transfers(evidence: Evidence) -> list[TransferSummary]:
    """Every arm that trained on right templated rollouts."""
    return [found for arm in evidence.arms if (found := _transfer(evidence, arm)) is not None]


def _transfer(evidence: Evidence, arm: str) -> TransferSummary | None:
    runs = evidence.of(arm, evidence.trials(arm))
    measured = [known for run in runs if (known := column(run, "update/transfer_log_ratio"))]
    if not measured:
        return None
    rates = {name: [v for run in runs for v in column(run, f"evolve/{name}")] for name in ("dev_rate", "fresh_rate")}
    return TransferSummary(
        arm=arm,
        first=mean(known[0] for known in measured),
        last=mean(known[-1] for known in measured),
        first_weight=mean(transfer_weight(known[:1], TAU) for known in measured),
        last_weight=mean(transfer_weight(known[-1:], TAU) for known in measured),
        dev_rate=mean(rates["dev_rate"]) if rates["dev_rate"] else None,
        fresh_rate=mean(rates["fresh_rate"]) if rates["fresh_rate"] else None,
    )


def column(run: Run, name: str) -> list[float]:
    """A metric of the iterations that have it."""
    return [row[name] for row in run.rows if name in row]
