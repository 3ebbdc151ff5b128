"""The results as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.row import RESULTS, ROWS


def read_results() -> dict[str, dict[str, Any]]:
    """The committed results by row, in the rows' order."""
    paths = {name: RESULTS / f"{name}.json" for name in ROWS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


HEADINGS = ("row", "what", "ratio", "range", "goal", "reached", "of the limit", "commit")


def lines(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A line a row: ratio (the worst case's median), its range, the goal, and the share of the machine's limit."""
    found: list[tuple[str, ...]] = []
    for name, result in results.items():
        share, (low, high) = result["limit_share"], result["spread"]
        found.append(
            (
                name,
                result["title"],
                f"{result['ratio']:.3g}",
                f"{low:.3g} to {high:.3g}",
                result["goal"],
                "yes" if result["reached"] else "no",
                "–" if share is None else f"{share:.0%}",
                result["commit"],
            )
        )
    return found


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as docs/benchmarks.md has it."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *lines(results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The same for the console."""
    shown = Table(*HEADINGS, title="Ours against theirs", title_justify="left")
    for line in lines(results):
        shown.add_row(*line, style="" if line[HEADINGS.index("reached")] == "yes" else "yellow")
    return shown
