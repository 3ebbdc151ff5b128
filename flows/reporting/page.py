"""The report of one run: what it learnt, where the signal came from, which templates, and problems before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from markupsafe import Markup

from flows.reporting.funnel import Funnel, fates, funnel
from flows.reporting.genealogy import best_templates, genealogies
from flows.reporting.pictures import TIER_TITLES, cost_bars, funnel_picture, line_panels, ratio_picture
from flows.reporting.rendering import render
from flows.reporting.rescues import rescues
from p2o_core.schemas import BadInput, read_problems, write_text
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.summary import Row, experiment_rows

PAGE = "report.html"
RESCUES = 8
"""Problems shown with their answers."""
BEST = 6
"""Templates in the table of the best."""
SIGNAL = {
    "train/all_fail": "all bare rollouts fail",
    "train/zero_signal": "no signal from bare rollouts",
    "templated_solve_rate": "templated rollouts solved",
}
UPDATE = {"update/entropy": "entropy (nats a token)"}
TRANSFER = {"update/transfer_log_ratio": "Δ of right templated rollouts"}
FRESH = {"evolve/dev_rate": "on dev problems", "evolve/fresh_rate": "on fresh problems"}


def write_run_report(workspace: Path) -> Path:
    """Write the report of the workspace's experiment beside its curves, from the iterations that are finished. Returns
    the page's path.

    Raises:
        BadInput: no params.yaml, or no finished iteration.
    """
    experiment = load_experiment(workspace / "params.yaml")
    layout = Layout(workspace, experiment.experiment)
    page = render("flows.reporting", "run.html.j2", contents(experiment, layout))
    layout.report.mkdir(parents=True, exist_ok=True)
    write_text(layout.report / PAGE, page)
    return layout.report / PAGE


def contents(experiment: Experiment, layout: Layout) -> dict[str, Any]:
    """What the page shows. Raises BadInput without a finished iteration."""
    rows = finished_rows(experiment, layout)
    folders = [layout.iteration(row["iteration"]) for row in rows[1:]]
    ways = fates(folders)
    told = funnel(experiment.arm, ways)
    problems = {problem.id: problem for problem in read_problems(layout.base / "train.parquet")}
    bounds = (experiment.distill.template_ratio_low, experiment.distill.template_ratio_high)
    return {
        "experiment": experiment,
        "rows": rows,
        "tiers": tiers(rows),
        "accuracy": accuracies(rows),
        "bounds": bounds,
        "funnel": told,
        "rescues": rescues(layout.run, problems, ways, RESCUES),
        "best": best_templates(folders, experiment.evolve, BEST) if experiment.evolve.enabled else [],
        "genealogies": genealogies(folders, experiment.evolve) if experiment.evolve.enabled else [],
        # made by matplotlib from numbers and names of ours, so not escaped again
        "pictures": {name: Markup(svg) for name, svg in pictures(rows, folders, told, bounds).items()},
    }


def finished_rows(experiment: Experiment, layout: Layout) -> list[Row]:
    """Of iteration 0 and of all whose update is done. Raises BadInput without one of these."""
    first, *rest = experiment_rows(layout.run, experiment.iterations) or [{}]
    rows = [first, *takewhile(lambda row: "tokens/total" in row, rest)]
    if len(rows) < 2:
        raise BadInput(f"{layout.run}: no finished iteration. Mend: `p2o run` first.")
    return rows


def tiers(rows: Sequence[Row]) -> list[str]:
    """Of the held-out problems."""
    return [name.removeprefix("accuracy/") for name in rows[0] if name.startswith("accuracy/")]


def accuracies(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Tier to its bare accuracy before training and at the last evaluation."""
    last = next(row for row in reversed(rows) if "accuracy/mean" in row)  # not every iteration is evaluated
    return {tier: (rows[0][f"accuracy/{tier}"], last[f"accuracy/{tier}"]) for tier in tiers(rows)}


def pictures(
    rows: Sequence[Row], folders: Sequence[Path], told: Funnel, bounds: tuple[float, float]
) -> Mapping[str, str]:
    """SVG by name."""
    accuracy = {f"accuracy/{tier}": TIER_TITLES.get(tier, tier) for tier in tiers(rows) if tier != "mean"}
    panels = {
        "held-out accuracy, bare": accuracy,
        "share": SIGNAL,
        "entropy": UPDATE,
        "Δ": TRANSFER,
        "rescue rate of the template set": FRESH,
    }
    return {
        "curves": line_panels(rows, panels, x="tokens/cumulative", label="generated tokens (thousands)"),
        "cost": cost_bars(rows),
        "funnel": funnel_picture([told]),
        "ratios": ratio_picture({told.arm: list(folders)}, bounds) if told.rescued else "",
    }
