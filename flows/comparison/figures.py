"""A comparison's pictures, as SVG text: curves over tokens, sweep, map, cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flows.comparison.runs import GENERATED, WITH_PROMPTS, Evidence, Measure, Run, by_base
from flows.comparison.statistics import bootstrap_mean
from flows.comparison.tables import SweepPoint
from flows.comparison.winners import Cell
from flows.reporting.pictures import COLOURS, STYLES, TOKEN_PARTS, panels_of, svg

GRID = 120
TOKENS = {GENERATED: "generated tokens", WITH_PROMPTS: "generated and prompt tokens"}


def curves(
    evidence: Evidence,
    arms: Sequence[str],
    metrics: dict[str, str],
    measure: Measure = GENERATED,
    *,
    shares: bool = True,
    budgets: Sequence[float] = (),
) -> str:
    """One panel a metric (its name to its title) over tokens, a line an arm: mean over bases and seeds, each base
    counting alike, band = 95 % interval. ``shares`` are all drawn from 0 to 1. Dotted lines at the ``budgets``. Blank
    without metrics or arms."""
    if not metrics or not arms:
        return ""
    figure, panels = panels_of(len(metrics))
    for panel, (metric, title) in zip(panels, metrics.items(), strict=True):
        for index, arm in enumerate(arms):
            _draw_band(panel, evidence.of(arm, evidence.trials(arm)), metric, arm, index, measure)
        for tokens in budgets:
            panel.axvline(tokens / 1000, color="#888888", linestyle=":", linewidth=1)
        panel.set(title=title, xlabel=f"{TOKENS[measure]} (thousands)")
        if shares:
            panel.set(ylim=(-0.03, 1.03))
    drawn = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2 * min(len(panels), 4) + 1)
    return svg(figure)


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
    return svg(figure)


def map_picture(cells: Sequence[Cell], arms: Sequence[str]) -> str:
    """Reviewer quality × share of helpful sentences: each world's winner, its accuracy, its margin in points over the
    second; pale where the margin's interval holds 0. A colour an arm; blank without worlds."""
    if not cells:
        return ""
    shares, qualities = (sorted({getattr(cell, axis) for cell in cells}) for axis in ("share", "quality"))
    figure = Figure(figsize=(1.6 + 1.35 * len(shares), 1.5 + 0.75 * len(qualities)), layout="constrained")
    panel = figure.subplots()
    colours = {arm: COLOURS[index % len(COLOURS)] for index, arm in enumerate(arms)}
    for cell in cells:
        _draw_cell(panel, cell, (shares.index(cell.share), qualities.index(cell.quality)), colours)
    panel.set_xticks(range(len(shares)), [f"{share:.3g}" for share in 100 * np.array(shares)])
    panel.set_yticks(range(len(qualities)), [f"{quality:g}" for quality in qualities])
    panel.set(xlim=(-0.5, len(shares) - 0.5), ylim=(-0.5, len(qualities) - 0.5))
    panel.set(xlabel="sentences that help (%)", ylabel="reviewer quality")
    panel.grid(visible=False)
    won = [arm for arm in arms if any(cell.winner == arm for cell in cells)]
    if won:
        handles = [Rectangle((0, 0), 1, 1, color=colours[arm]) for arm in won]
        figure.legend(handles, won, loc="outside lower center", ncols=4)
    return svg(figure)


def _draw_cell(panel: Axes, cell: Cell, place: tuple[int, int], colours: dict[str, str]) -> None:
    x, y = place
    colour = colours.get(cell.winner, "#DDDDDD")
    clear = cell.margin is not None and cell.margin.excludes(0.0)
    panel.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, alpha=0.55 if clear else 0.18, lw=0))
    if cell.margin is None:
        text = f"{cell.finished} of {len(colours)}\narms done"
    else:
        text = f"{cell.winner}\n{100 * cell.accuracy:.0f} % (+{100 * cell.margin.value:.0f})"
    panel.text(x, y, text, ha="center", va="center", fontsize=8.5)


def cost_picture(evidence: Evidence, arms: Sequence[str]) -> str:
    """Where the tokens went: rollouts, templated rollouts, search, and the prompts of all these; mean over seeds.
    Blank without arms."""
    if not arms:
        return ""
    figure = Figure(figsize=(7.6, 0.34 * len(arms) + 1.1), layout="constrained")
    panel = figure.subplots()
    left = np.zeros(len(arms))
    for index, (part, column) in enumerate(TOKEN_PARTS.items()):
        sums = [
            mean(sum(row.get(column, 0) for row in run.rows) for run in evidence.of(arm, evidence.trials(arm)))
            for arm in arms
        ]
        panel.barh(arms, np.array(sums) / 1000, left=left / 1000, color=COLOURS[index], label=part)
        left += sums
    panel.invert_yaxis()
    panel.set(xlabel="tokens within the budget of generated ones (thousands)")
    figure.legend(loc="outside lower center", ncols=len(TOKEN_PARTS))
    return svg(figure)
