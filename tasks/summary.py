"""report: one row an iteration over the whole experiment, for tables, DVC plots and MLflow."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from p2o_core.evaluation import Measurement, read_evaluation
from p2o_core.mining import MiningReport
from p2o_core.schemas import read_record, write_record
from p2o_core.types import SearchCost, TemplateSearch
from p2o_core.update_report import IterationUpdate, SkillCheck
from tasks.running.manifests import manifest_path, read_manifest
from tasks.running.stage import Stage, StageIO

Row = dict[str, Any]
GATHERED = (
    "metrics.json",
    "mining.json",
    "templates.json",
    "update.json",
    *(manifest_path(Path(), stage).name for stage in ("rollout", "evaluate")),
)


@dataclass(frozen=True)
class Summary:
    """An experiment on one page: summary.json. Accuracies by name (``accuracy/<difficulty>``), before training and at
    the last evaluation; ``evaluated`` are these two iterations, ``tokens`` all that were generated for training,
    ``prompt_tokens`` those of the prompts they were sampled from."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    gain: Mapping[str, float]
    evaluated: tuple[int, int]
    tokens: int
    iterations: int
    prompt_tokens: int = 0


def iteration_row(folder: Path) -> Row:
    """What one iteration did, from its artefacts; keys are MLflow metric names. Iteration 0 has accuracy only."""
    row: Row = {}
    if (folder / "metrics.json").exists() and (measured := read_evaluation(folder / "metrics.json")):
        row |= _evaluation_row(measured)
    if (folder / "mining.json").exists():
        mining = read_record(folder / "mining.json", MiningReport)
        row |= {
            "train/solve_rate": mining.solve_rate,
            "train/all_fail": mining.all_fail,
            "train/all_pass": mining.all_pass,
            "train/zero_signal": mining.zero_signal,
            "hard_set": mining.hard,
            "near_hard": mining.near_hard,
        }
    if (folder / "update.json").exists():
        row |= _training_row(folder)
    return row


def _evaluation_row(measured: Measurement) -> Row:
    row: Row = {f"accuracy/{tier}": value for tier, value in measured.accuracy.items()}
    row["accuracy/mean"] = measured.mean_accuracy
    row |= {f"pass_at_{k}/{tier}": value for k, tiers in measured.pass_at.items() for tier, value in tiers.items()}
    row |= {f"maj_at_k/{tier}": value for tier, value in measured.maj_at.items()}
    for tier, lengths in measured.lengths.items():
        row |= {f"tokens_{name}/{tier}": value for name, value in vars(lengths).items()}
    row |= {f"best_template/{tier}": value for tier, value in (measured.best_template or {}).items()}
    return row | {"mean_tokens": measured.mean_tokens, "truncated": measured.truncated}


def _training_row(folder: Path) -> Row:
    search = read_record(folder / "templates.json", TemplateSearch)
    update = read_record(folder / "update.json", IterationUpdate)
    rolled_out = read_manifest(manifest_path(folder, "rollout")).counts
    tokens = {"rollout": rolled_out["tokens"], "templated": update.templated_tokens, "gepa": search.cost.tokens}
    prompts = {
        "rollout": rolled_out.get("prompt_tokens", 0),  # not counted by earlier versions
        "templated": update.templated_prompt_tokens,
        "gepa": search.cost.prompt_tokens,
    }
    return {
        "templates_kept": len(search.kept),
        "templates_tried": len(search.templates),
        **({"best_template_score": search.best.mean_score} if search.best else {}),
        "gepa_metric_calls": search.cost.metric_calls,
        **_reflection_row(search.cost),
        **_transfer_row(search),
        "templated_solve_rate": update.templated_solve_rate,
        "templated_reused": update.reused,
        "groups_with_signal": update.groups_with_signal,
        "optimizer_steps": update.optimizer_steps,
        **{f"update/{name}": value for name, value in update.metrics.items()},
        "update/entropy": update.entropy,
        **_skills_row(update.skills),
        **{f"tokens/{name}": value for name, value in tokens.items()},
        "tokens/total": sum(tokens.values()),
        **{f"prompt_tokens/{name}": value for name, value in prompts.items()},
        "prompt_tokens/total": sum(prompts.values()),
    }


def _skills_row(skills: SkillCheck | None) -> Row:
    """Of updates after which solved problems were tried again."""
    if skills is None:
        return {}
    return {
        "skills_before": skills.before,
        "skills_after": skills.after,
        "rolled_back": int(skills.answer == "rolled_back"),
        "tokens/probe": skills.tokens,
    }


def _reflection_row(cost: SearchCost) -> Row:
    """Of searches in which a model reflected."""
    if not cost.reflection_calls:
        return {}
    return {
        "gepa_reflection_calls": cost.reflection_calls,
        "gepa_reflection_tokens": cost.reflection_output_tokens,
        "gepa_dollars": cost.reflection_dollars,
        **{f"gepa_refused/{reason}": count for reason, count in cost.refused.items()},
        **{f"gepa_failed/{kind}": count for kind, count in cost.failed.items()},
    }


def _transfer_row(search: TemplateSearch) -> Row:
    """Of template sets that were weighed by transfer, and of those that were scored on fresh problems: dev and fresh
    rate are of the same templates, so their difference is what choosing them by dev scores feigned."""
    row: Row = {}
    if transfers := [template.transfer for template in search.kept if template.transfer is not None]:
        row |= {"evolve/transfer_score": fmean(transfers), "gepa_scored_tokens": search.cost.scored_tokens}
    if log_ratios := [template.log_ratio for template in search.kept if template.log_ratio is not None]:
        row |= {"evolve/log_ratio": fmean(log_ratios)}
    if rates := [(template.mean_score, template.fresh) for template in search.templates if template.fresh is not None]:
        dev, fresh = map(fmean, zip(*rates, strict=True))
        row |= {"evolve/dev_rate": dev, "evolve/fresh_rate": fresh, "evolve/selection_bias": dev - fresh}
    return row


def experiment_rows(run_folder: Path, last_iteration: int, known: Sequence[Row] = ()) -> list[Row]:
    """Rows of iterations 0 to the last one that has anything, with ``tokens/cumulative`` and, prompts included,
    ``tokens/with_prompts``. The first of them may be ``known``: those of finished iterations, not read again."""
    rows = list(known)
    spent = rows[-1]["tokens/cumulative"] if rows else 0
    read = rows[-1]["tokens/with_prompts"] - spent if rows else 0
    for iteration in range(len(rows), last_iteration + 1):
        row = iteration_row(run_folder / str(iteration))
        if not row:
            break
        spent += row.get("tokens/total", 0)
        read += row.get("prompt_tokens/total", 0)
        rows.append({"iteration": iteration, **row, "tokens/cumulative": spent, "tokens/with_prompts": spent + read})
    return rows


def run(io: StageIO) -> None:
    """Write ``curves.csv`` (a row an iteration) and ``summary.json`` (before, after, cost)."""
    rows = experiment_rows(io.layout.run, io.experiment.iterations)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with io.outputs["curves"].open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    first, last = rows[0], rows[-1]
    accuracy = [name for name in first if name.startswith("accuracy/")]
    measured = next(row for row in reversed(rows) if "accuracy/mean" in row)  # not every iteration is evaluated
    summary = Summary(
        before={name: first[name] for name in accuracy},
        after={name: measured[name] for name in accuracy},
        gain={name: measured[name] - first[name] for name in accuracy},
        evaluated=(first["iteration"], measured["iteration"]),
        tokens=last["tokens/cumulative"],
        iterations=last["iteration"],
        prompt_tokens=last["tokens/with_prompts"] - last["tokens/cumulative"],
    )
    write_record(io.outputs["summary"], summary)


STAGE = Stage(
    name="summary",
    run=run,
    inputs={},
    outputs={"curves": "curves.csv", "summary": "summary.json"},
    params=("iterations",),
    where="report",
    per_iteration=False,
    gathers=GATHERED,
)
