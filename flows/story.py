"""A run's story in sentences, for its log in Prefect's page: one a stage, one an iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p2o_core.mining import MiningReport, rewards_by_problem
from p2o_core.schemas import read_record, read_rows
from p2o_core.types import HardSample, Judged, Template, TemplateSearch
from p2o_core.update_report import IterationUpdate
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path, read_manifest

Row = Mapping[str, Any]
SHOWN = 120
"""Characters of a template in a sentence."""


@dataclass(frozen=True)
class Rescue:
    """What templates did for an iteration's hard problems. ``tried`` were answered under one, ``solved`` of these at
    least once."""

    hard: list[HardSample]
    tried: list[str]
    solved: list[str]


def rescue(layout: Layout, iteration: int) -> Rescue:
    """Of a finished iteration, hardest first. Raises BadInput."""
    folder = layout.iteration(iteration)
    hard = sorted(read_rows(folder / "hard.parquet", HardSample), key=lambda sample: sample.solve_rate)
    rewards = rewards_by_problem(read_rows(folder / "templated_verdicts.parquet", Judged))
    return Rescue(hard, list(rewards), [problem for problem, values in rewards.items() if any(values)])


def stage_sentence(stage: str, layout: Layout, iteration: int) -> str:
    """What a stage that is done found; blank where there is nothing to tell. Raises BadInput."""
    folder = layout.iteration(iteration)
    if stage == "rollout":
        counts = read_manifest(manifest_path(folder, "rollout")).counts
        return f"{counts['completions']:,} answers to {counts['problems']} problems, {counts['tokens']:,} tokens"
    if stage == "mine":
        report = read_record(folder / "mining.json", MiningReport)
        before = f", {report.remembered} more from iterations before" if report.remembered else ""
        return (
            f"{report.hard} hard problems, {report.near_hard} of them solved once{before}; "
            f"{report.solve_rate:.0%} of the bare answers were right, "
            f"{report.zero_signal:.0%} of the groups alone carry no signal"
        )
    if stage == "evolve":
        return _search(read_record(folder / "templates.json", TemplateSearch))
    if stage == "distill":
        return _update(read_record(folder / "update.json", IterationUpdate), rescue(layout, iteration))
    return ""


def learnt_nothing(layout: Layout, iteration: int) -> bool:
    """No group of the iteration carried a signal."""
    return read_record(layout.iteration(iteration) / "update.json", IterationUpdate).status == "no_signal"


def _search(search: TemplateSearch) -> str:
    if not search.kept:
        return f"no template ({search.status.replace('_', ' ')})"
    best = search.best or search.kept[0]
    return (
        f"{len(search.templates)} templates looked at, {len(search.kept)} kept ({search.status}), "
        f"{search.cost.tokens:,} tokens; the best solves {best.mean_score:.0%}: {shortened(best)}"
    )


def _update(update: IterationUpdate, found: Rescue) -> str:
    if update.status == "off":
        return "the weights stay as they are (distill.enabled: false)"
    rescued = f"templates rescued {len(found.solved)} of {len(found.tried)} hard problems; " if found.tried else ""
    learnt = f"groups with a signal: {update.groups_with_signal}, optimiser steps so far: {update.optimizer_steps}"
    return rescued + (learnt if update.status == "updated" else "no group carried a signal, nothing was learnt")


def shortened(template: Template) -> str:
    """A template's text on a line."""
    text = " ".join(template.text.split()) or "(blank)"
    return f"“{text[:SHOWN]}…”" if len(text) > SHOWN else f"“{text}”"


def iteration_sentence(rows: Sequence[Row], rescued: Rescue | None) -> str:
    """The last of the rows (:func:`tasks.summary.experiment_rows`) in the light of the one measured before."""
    row = rows[-1]
    parts = []
    if rescued is not None and rescued.tried:
        parts.append(f"{len(rescued.hard)} problems were hard, templates rescued {len(rescued.solved)} of them")
    elif "hard_set" in row:
        parts.append(f"{row['hard_set']} problems were hard")
    if measured := accuracies(row):
        before = next((earlier for earlier in reversed(rows[:-1]) if accuracies(earlier)), {})
        parts.append("held-out " + ", ".join(_moved(tier, before.get(tier), row[tier]) for tier in measured))
    if "tokens/total" in row:
        parts.append(f"{row['tokens/total']:,} tokens, {row['tokens/cumulative']:,} so far")
    return f"Iteration {row['iteration']}: {'; '.join(parts)}."


def accuracies(row: Row) -> list[str]:
    """The names of what was measured, without their mean."""
    return [name for name in row if name.startswith("accuracy/") and name != "accuracy/mean"]


def _moved(tier: str, before: float | None, now: float) -> str:
    name = tier.removeprefix("accuracy/")
    return f"{name} {now:.2f}" if before is None else f"{name} {before:.2f} → {now:.2f}"
