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


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line a row: ratio (the worst case's median), its range, the goal, and the share of the machine's limit."""
    shown = Table(title="Ours against theirs", title_justify="left")
    for heading in ("row", "what", "ratio", "range", "goal", "reached", "of the limit", "commit"):
        shown.add_column(heading)
    for name in ROWS:
        if name not in results:
            continue
        result = results[name]
        share = result["limit_share"]
        low, high = result["spread"]
        shown.add_row(
            name,
            result["title"],
            f"{result['ratio']:.3g}",
            f"{low:.3g} to {high:.3g}",
            result["goal"],
            "yes" if result["reached"] else "[red]no[/]",
            "–" if share is None else f"{share:.0%}",
            result["commit"],
        )
    return shown
