"""The parts of pictures that all reports share, as SVG text: the same numbers give the same bytes, without network."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from flows.reporting.funnel import Funnel
from p2o_core.schemas import read_record
from p2o_core.update_report import RATIO_EDGES, IterationUpdate
from tasks.summary import Row

# colours of Okabe and Ito, told apart by colour-blind people too
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7F7F7F", "#000000")
STYLES = ("-", "--", "-.", ":")
PANELS = 4
"""Beside each other; more stand in rows."""
TOKEN_PARTS = {
    "bare rollouts": "tokens/rollout",
    "templated rollouts": "tokens/templated",
    "search": "tokens/gepa",
    "prompts": "prompt_tokens/total",
}
"""What tokens are spent on, to the column that counts them."""
TIER_TITLES = {"easy": "easy", "hard": "hard", "ood": "out of distribution"}

mpl.rcParams.update(
    {
        "svg.hashsalt": "p2o",  # ids inside the SVG are random otherwise
        "svg.fonttype": "none",
        "text.parse_math": False,  # names of arms and difficulties are other people's: a dollar is a dollar
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
)


def panels_of(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most :data:`PANELS` beside each other."""
    down = -(-count // PANELS)
    across = -(-count // down)
    figure = Figure(figsize=(4.2 * across, 3.6 * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def line_panels(rows: Sequence[Row], panels: Mapping[str, Mapping[str, str]], *, x: str, label: str) -> str:
    """A run's metrics: a panel for each title, a line for each metric (its name to its label) where it was measured;
    panels of which nothing was are left out. ``x``, in thousands, is a column too."""
    known = {name for row in rows for name in row}
    shown = {title: {m: text for m, text in metrics.items() if m in known} for title, metrics in panels.items()}
    shown = {title: metrics for title, metrics in shown.items() if metrics}
    figure, axes = panels_of(len(shown))
    for panel, (title, metrics) in zip(axes, shown.items(), strict=True):
        for index, (metric, text) in enumerate(metrics.items()):
            points = [(row[x] / 1000, row[metric]) for row in rows if metric in row]
            panel.plot(*zip(*points, strict=True), label=text, color=COLOURS[index % len(COLOURS)], marker=".")
        panel.set(title=title, xlabel=label)
        panel.legend(fontsize=8)
    return svg(figure)


def cost_bars(rows: Sequence[Row]) -> str:
    """Where each iteration's tokens went."""
    trained = [row for row in rows if "tokens/total" in row]
    figure = Figure(figsize=(7.6, 2.8), layout="constrained")
    panel = figure.subplots()
    places = [row["iteration"] for row in trained]
    below = np.zeros(len(trained))
    for index, (part, column) in enumerate(TOKEN_PARTS.items()):
        heights = np.array([row.get(column, 0) for row in trained]) / 1000
        panel.bar(places, heights, bottom=below, color=COLOURS[index], label=part)
        below += heights
    panel.set(xlabel="iteration", ylabel="tokens (thousands)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=len(TOKEN_PARTS))
    return svg(figure)


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
    panel.set(ylabel="training problems")
    panel.legend()
    return svg(figure)


def ratio_picture(folders: dict[str, list[Path]], bounds: tuple[float, float]) -> str:
    """Histograms of the template ratio of all templated tokens, with the mask's bounds: a panel an arm, of whose runs
    these are the iterations."""
    figure = Figure(figsize=(4.2 * len(folders), 3.0), layout="constrained")
    panels = figure.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    for panel, (arm, iterations) in zip(panels, folders.items(), strict=True):
        edges, counts = template_ratios(iterations)
        total = max(1, counts.sum())
        panel.bar(edges[:-1], counts / total, np.diff(edges), align="edge", color=COLOURS[0])
        for bound in bounds:
            panel.axvline(math.log10(bound), color=COLOURS[1], linestyle="--")
        outside = counts[(edges[1:] <= math.log10(bounds[0])) | (edges[:-1] >= math.log10(bounds[1]))].sum() / total
        panel.set(title=f"{arm}: {outside:.1%} outside", xlabel="log10 template ratio (bare / templated)", yscale="log")
        panel.yaxis.set_major_formatter("{x:g}")  # a logarithmic axis writes its powers as formulas otherwise
        panel.yaxis.set_minor_formatter(NullFormatter())
    return svg(figure)


def template_ratios(folders: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(edges in log10, counts) over all these iterations."""
    counts = np.zeros(len(RATIO_EDGES) - 1)
    for folder in folders:
        counts += read_record(folder / "update.json", IterationUpdate).template_ratios
    return RATIO_EDGES, counts


def svg(figure: Figure) -> str:
    """The figure as text to stand in a page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
