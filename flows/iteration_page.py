"""An iteration's page among Prefect's artefacts: what happened, what was hard, what helped, and where to look on."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from flows.story import Rescue, Row, accuracies, iteration_sentence, rescue
from p2o_core.schemas import read_problems, read_record
from p2o_core.types import Problem, TemplateSearch
from tasks.running.layout import Layout

SHOWN = 5
"""Hard problems that are quoted."""
BARS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, EDGE = 560, 220, 36
COLOURS = ("#0b6e4f", "#c2410c", "#1d4ed8", "#7e22ce", "#57534e", "#be123c")


def iteration_page(layout: Layout, rows: Sequence[Row], links: Mapping[str, str]) -> str:
    """Markdown about the last of ``rows``. Raises BadInput."""
    iteration = rows[-1]["iteration"]
    found = rescue(layout, iteration) if iteration else None
    parts = [
        f"# {layout.experiment}, iteration {iteration}",
        iteration_sentence(rows, found),
        _curves(rows),
    ]
    if found is not None:
        parts += [_hard(layout, found), _templates(layout, iteration)]
    parts.append("## Look on\n\n" + "\n".join(f"- {name}: {where}" for name, where in links.items()))
    return "\n\n".join(part for part in parts if part)


def _curves(rows: Sequence[Row]) -> str:
    """A picture, and the same in a table of characters for whoever does not see it."""
    measured = [row for row in rows if accuracies(row)]
    if not measured:
        return ""
    names = accuracies(measured[-1])
    table = ["| held-out accuracy | before training | now | from iteration to iteration |", "|---|---|---|---|"]
    for name in names:
        values = [row[name] for row in measured if name in row]
        cells = (name.removeprefix("accuracy/"), f"{values[0]:.3f}", f"{values[-1]:.3f}", sparkline(values))
        table.append(f"| {' | '.join(cells)} |")
    drawn = base64.b64encode(curves_svg(measured, names).encode()).decode()
    picture = f"![held-out accuracy, bare prompt](data:image/svg+xml;base64,{drawn})" if len(measured) > 1 else ""
    return "\n\n".join(part for part in ("\n".join(table), picture) if part)


def sparkline(values: Sequence[float]) -> str:
    """Shares as bars.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    return "".join(BARS[min(len(BARS) - 1, int(max(0.0, value) * len(BARS)))] for value in values[-40:])


def curves_svg(rows: Sequence[Row], names: Sequence[str]) -> str:
    """One line a difficulty over iterations, shares from 0 to 1."""
    last = max(1, rows[-1]["iteration"])

    def place(iteration: int, share: float) -> str:
        x = EDGE + (WIDTH - EDGE - 90) * iteration / last
        return f"{x:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share:.1f}"

    drawn = []
    for share in (0.0, 0.5, 1.0):
        level, end = place(0, share).split(",")[1], place(last, share).split(",")[0]
        drawn.append(f'<path d="M{EDGE},{level} H{end}" stroke="#d6d3d1"/><text x="4" y="{level}">{share:.1f}</text>')
    heights: list[float] = []
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        points = [place(row["iteration"], row[name]) for row in rows if name in row]
        x, y = map(float, points[-1].split(","))
        while any(abs(y - taken) < 13 for taken in heights):  # names that would lie on each other
            y -= 13
        heights.append(y)
        drawn.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = escape(name.removeprefix("accuracy/"))
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{label}</text>')
    drawn.append(f'<text x="{EDGE}" y="{HEIGHT - 10}">iteration 0 to {last}, held-out accuracy, bare prompt</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif"'
    return f'{head} font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>'


def _hard(layout: Layout, found: Rescue) -> str:
    if not found.hard:
        return "## What was hard\n\nNothing: every problem was solved more than once."
    problems = {problem.id: problem for problem in read_problems(layout.base / "train.parquet")}
    kinds = sorted({problems[s.problem_id].difficulty for s in found.hard if s.problem_id in problems})
    of = f" ({', '.join(kinds)})" if kinds else ""
    said = f"{len(found.hard)} problems{of}. "
    said += f"Under templates {len(found.tried)} were tried, {len(found.solved)} solved." if found.tried else ""
    solved, tried = set(found.solved), set(found.tried)
    quoted = [
        f"- {_how(sample.problem_id, solved, tried)}: {code(_asked(problems, sample.problem_id))}"
        for sample in found.hard[:SHOWN]
    ]
    return "\n".join(["## What was hard", "", said, "", *quoted])


def _how(problem: str, solved: set[str], tried: set[str]) -> str:
    if problem in solved:
        return "rescued"
    return "not rescued" if problem in tried else "not tried under a template"


def _asked(problems: Mapping[str, Problem], problem: str) -> str:
    return problems[problem].question if problem in problems else problem


def _templates(layout: Layout, iteration: int) -> str:
    search = read_record(layout.iteration(iteration) / "templates.json", TemplateSearch)
    if not search.kept:
        return f"## Best template\n\nNone is in use ({search.status.replace('_', ' ')})."
    best = max(search.kept, key=lambda template: template.drawing_weight)
    said = f"It solves {best.mean_score:.0%} of what it was scored on; {len(search.kept)} of {len(search.templates)} "
    said += f"candidates are kept, last searched in iteration {search.searched_at}."
    return f"## Best template\n\n{block(best.text)}\n\n{said}"


def code(text: str) -> str:
    """A line of any text as code, backticks and all."""
    line = " ".join(text.split())[:300]
    fence = "`"
    while fence in line:
        fence += "`"
    return f"{fence} {line} {fence}"


def block(text: str) -> str:
    """Any text as a block of code."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text or '(blank)'}\n{fence}"
