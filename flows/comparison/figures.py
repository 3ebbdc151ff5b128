"""The report's pictures, as SVG text: the same runs give the same bytes, and they need no network."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flows.comparison.runs import GENERATED, WITH_PROMPTS, Evidence, Measure, Run, by_base
from flows.comparison.statistics import bootstrap_mean
from flows.comparison.tables import Funnel, SweepPoint
from p2o_core.schemas import read_record
from p2o_core.update_report import RATIO_EDGES, IterationUpdate

# colours of Okabe and Ito, told apart by colour-blind people too
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7F7F7F", "#000000")
STYLES = ("-", "--", "-.", ":")
GRID = 120
TOKENS = {GENERATED: "generated tokens", WITH_PROMPTS: "generated and prompt tokens"}
PANELS = 4
"""Beside each other; more stand in rows."""
TIER_TITLES = {"easy": "easy", "hard": "hard", "ood": "out of distribution"}

mpl.rcParams.update(
    {
        "svg.hashsalt": "p2o",  # ids inside the SVG are random otherwise
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
)


def curves(evidence: Evidence, arms: Sequence[str], metrics: dict[str, str], measure: Measure = GENERATED) -> str:
    """One panel a metric (its name to its title) over tokens: mean over bases and seeds, band = 95 % interval. At most
    :data:`PANELS` beside each other; blank without metrics or arms."""
    if not metrics or not arms:
        return ""
    across, down = min(PANELS, len(metrics)), -(-len(metrics) // PANELS)
    figure = Figure(figsize=(4.2 * across, 3.6 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for empty in panels[len(metrics) :]:
        empty.remove()
    for panel, (metric, title) in zip(panels, metrics.items(), strict=False):
        for index, arm in enumerate(arms):
            _draw_band(panel, evidence.of(arm, evidence.trials(arm)), metric, arm, index, measure)
        panel.set(title=title, xlabel=f"{TOKENS[measure]} (thousands)", ylim=(-0.03, 1.03))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * across + 1)
    return _svg(figure)


def _draw_band(panel: Axes, runs: list[Run], metric: str, label: str, index: int, measure: Measure) -> None:
    runs = [run for run in runs if any(metric in row for row in run.rows)]
    if not runs:
        return
    end = max(run.rows[-1][measure] for run in runs)
    grid = np.linspace(0, end, GRID)
    values = [np.array([_on_grid(run, metric, grid, measure) for run in part]) for _, part in by_base(runs)]
    middle = np.mean([part.mean(axis=0) for part in values], axis=0)
    intervals = [bootstrap_mean([part[:, k : k + 1] for part in values], resamples=1000) for k in range(GRID)]
    colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
    panel.plot(grid / 1000, middle, label=label, linewidth=1.8, color=colour, linestyle=style)
    panel.fill_between(
        grid / 1000, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.15, lw=0
    )


def _on_grid(run: Run, metric: str, grid: np.ndarray, measure: Measure) -> np.ndarray:
    """The last value known at each token count; before the first one, the first."""
    known = [(row[measure], row[metric]) for row in run.rows if metric in row]
    tokens, values = np.array(known, dtype=float).T
    return values[np.clip(np.searchsorted(tokens, grid, side="right") - 1, 0, None)]


def sweep_picture(points: Sequence[SweepPoint], arms: Sequence[str]) -> str:
    """Accuracy after training against bare accuracy before it, a point a world."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    panel = figure.subplots()
    places = np.arange(len(points))
    width = 0.8 / (len(arms) + 1)
    panel.bar(places - 0.4 + width / 2, [p.before for p in points], width, color="#BBBBBB", label="before training")
    for index, arm in enumerate(arms, start=1):
        heights = [point.after[arm] for point in points]
        panel.bar(places - 0.4 + width * (index + 0.5), heights, width, color=COLOURS[index - 1], label=arm)
    panel.set_xticks(places, [f"{point.world}\nbare {point.before:.1%}" for point in points])
    panel.set(ylabel="bare accuracy, hard problems", ylim=(0, 1.03))
    figure.legend(loc="outside lower center", ncols=len(arms) + 1)
    return _svg(figure)


def funnel_picture(funnels: Sequence[Funnel]) -> str:
    """Bars of one funnel an arm."""
    stages = ("seen", "hard", "rescued", "seen_again", "solved_bare")
    names = ("drawn", "all bare\nrollouts failed", "solved under\na template", "drawn again\nbare", "solved bare")
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    panel = figure.subplots()
    width = 0.8 / len(funnels)
    for index, entry in enumerate(funnels):
        places = np.arange(len(stages)) - 0.4 + width * (index + 0.5)
        bars = panel.bar(
            places, [getattr(entry, stage) for stage in stages], width, color=COLOURS[index], label=entry.arm
        )
        panel.bar_label(bars, fontsize=8)
    panel.set_xticks(range(len(stages)), names)
    panel.set(ylabel="training problems, all seeds")
    panel.legend()
    return _svg(figure)


def ratio_picture(evidence: Evidence, arms: Sequence[str], bounds: tuple[float, float]) -> str:
    """Histograms of the template ratio of all templated tokens, with the mask's bounds."""
    figure = Figure(figsize=(4.2 * len(arms), 3.0), layout="constrained")
    for panel, arm in zip(np.atleast_1d(figure.subplots(1, len(arms), sharey=True)), arms, strict=True):
        edges, counts = template_ratios(evidence.of(arm, evidence.trials(arm)))
        total = max(1, counts.sum())
        panel.bar(edges[:-1], counts / total, np.diff(edges), align="edge", color=COLOURS[0])
        for bound in bounds:
            panel.axvline(math.log10(bound), color=COLOURS[1], linestyle="--")
        outside = counts[(edges[1:] <= math.log10(bounds[0])) | (edges[:-1] >= math.log10(bounds[1]))].sum() / total
        panel.set(title=f"{arm}: {outside:.1%} outside", xlabel="log10 template ratio (bare / templated)", yscale="log")
    return _svg(figure)


def template_ratios(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """(edges in log10, counts) over all iterations of these runs."""
    updates = [
        read_record(run.folder / str(row["iteration"]) / "update.json", IterationUpdate)
        for run in runs
        for row in run.rows[1:]
    ]
    counts = np.zeros(len(RATIO_EDGES) - 1)
    for update in updates:
        counts += update.template_ratios
    return RATIO_EDGES, counts


def cost_picture(evidence: Evidence, arms: Sequence[str]) -> str:
    """Where the tokens went: rollouts, templated rollouts, search, and the prompts of all these; mean over seeds.
    Blank without arms."""
    if not arms:
        return ""
    parts: dict[str, Callable[[dict[str, Any]], float]] = {
        "bare rollouts": lambda row: row.get("tokens/rollout", 0),
        "templated rollouts": lambda row: row.get("tokens/templated", 0),
        "search": lambda row: row.get("tokens/gepa", 0),
        "prompts": lambda row: row.get("prompt_tokens/total", 0),
    }
    figure = Figure(figsize=(7.6, 0.34 * len(arms) + 1.1), layout="constrained")
    panel = figure.subplots()
    left = np.zeros(len(arms))
    for index, (part, tokens) in enumerate(parts.items()):
        sums = [
            mean(sum(tokens(row) for row in run.rows) for run in evidence.of(arm, evidence.trials(arm))) for arm in arms
        ]
        panel.barh(arms, np.array(sums) / 1000, left=left / 1000, color=COLOURS[index], label=part)
        left += sums
    panel.invert_yaxis()
    panel.set(xlabel="tokens within the budget of generated ones (thousands)")
    figure.legend(loc="outside lower center", ncols=len(parts))
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
