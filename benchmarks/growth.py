"""How cost grows with the work: ``python -m benchmarks.growth`` writes results/growth.json and docs/images/growth.svg.

Every point is one of the rows' own sides, in a process of its own. ``exponent`` is the slope in double logarithms: 1 is
linear, 0 is flat.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.row import OURS, REPOSITORY, RESULTS, Settings, commit, load_row, machine, run_side, versions

PICTURE = REPOSITORY / "docs" / "images" / "growth.svg"
SMALLER = {"vocabulary": 8192, "hidden": 128, "layers": 2, "heads": 4, "feed_forward": 512}
MIB = 2**20


@dataclass(frozen=True)
class Curve:
    """``points`` are settings of a row's side; ``x`` and ``y`` name numbers of it, or settings."""

    title: str
    row: str
    case: str
    points: Sequence[Settings]
    x: str
    y: str
    unit: str
    scale: float = 1.0


def update_points(**fixed: Any) -> list[Settings]:
    """Ever more groups of the same kind."""
    return [{"shape": SMALLER, "longest": 512, "microbatch": 4096, **fixed, "groups": n} for n in (2, 4, 8, 16)]


CURVES: Mapping[str, Curve] = {
    "update": Curve(
        "update over completion tokens", "S1", "full", update_points(), "completion_tokens", "cpu_s", "processor s"
    ),
    "update_memory": Curve(
        "update's memory over sequences", "S1", "full", update_points(), "groups", "peak_bytes", "MiB", 1 / MIB
    ),
    "update_memory_vocabulary": Curve(
        "LoRA update's memory over the vocabulary",
        "S1",
        "LoRA",
        [
            {"shape": {**SMALLER, "vocabulary": v}, "longest": 256, "microbatch": 4096, "groups": 2}
            for v in (8_192, 32_768, 131_072)
        ],
        "vocabulary",
        "peak_bytes",
        "MiB",
        1 / MIB,
    ),
    "rollout": Curve(
        "rollout over tokens",
        "S4",
        "micro-world float32",
        [{"prompts": n, "drawn": 0} for n in (16, 32, 64, 128)],
        "tokens",
        "cpu_s",
        "processor s",
    ),
    "search": Curve(
        "search over candidates",
        "S6",
        "micro-world",
        [{"calls": n, "repetition": 1} for n in (150, 300, 600, 1200)],
        "metric_calls",
        "cpu_s",
        "processor s",
    ),
    "orchestration": Curve(
        "orchestration over iterations",
        "S8",
        "of 10 iterations",
        [{"iterations": 12, "run": 12}],
        "iteration",
        "overhead_s_by_iteration",
        "s an iteration",
    ),
}


def measure(curve: Curve, scratch: Path, console: Console) -> dict[str, Any]:
    """A curve's points and exponent."""
    case = load_row(curve.row).cases[curve.case]
    x: list[float] = []
    y: list[float] = []
    for number, point in enumerate(curve.points):
        settings = {"repetition": 0, **case, **point}
        folder = scratch / f"{curve.title}-{number}".replace(" ", "-").replace("'", "")
        numbers = {**settings, **settings.get("shape", {}), **run_side(curve.row, OURS, settings, folder).numbers}
        if isinstance(numbers[curve.y], list):
            y += [float(value) * curve.scale for value in numbers[curve.y]]
            x += list(range(1, len(y) + 1))
        else:
            x.append(float(numbers[curve.x]))
            y.append(float(numbers[curve.y]) * curve.scale)
        console.print(f"{curve.title}: {x[-1]:g} → {y[-1]:.3g} {curve.unit}", markup=False)
    exponent = float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-9)), 1)[0])
    return {
        "title": curve.title,
        "x": curve.x,
        "unit": curve.unit,
        "points": [*zip(x, y, strict=True)],
        "exponent": exponent,
    }


def draw(curves: Mapping[str, Any], path: Path) -> None:
    """A small picture for each curve, with the straight line through its last point beside it."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "p2o"
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for place, curve in zip(places.flat, curves.values(), strict=False):
        x, y = zip(*curve["points"], strict=True)
        place.plot(x, y, "o-", color="#1f5fa8")
        place.set_title(f"{curve['title']} (exponent {curve['exponent']:.2f})", fontsize=8)
        place.set_xlabel(curve["x"].replace("_", " "), fontsize=8)
        place.set_ylabel(curve["unit"], fontsize=8)
        place.set_xlim(left=0)
        place.set_ylim(bottom=0)
        place.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Date": None})


def main(only: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(CURVES)}.")] = None) -> None:
    """Measure the curves that are asked for, keep the others of growth.json, draw all."""
    console, path = Console(width=120), RESULTS / "growth.json"
    before = json.loads(path.read_text())["curves"] if path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="p2o-growth-") as scratch:
        new = {name: measure(CURVES[name], Path(scratch), console) for name in only or CURVES}
    curves = {name: (before | new)[name] for name in CURVES if name in before | new}
    about = {"commit": commit(), "machine": machine(), "versions": versions()}
    path.write_text(json.dumps({**about, "curves": curves}, indent=1) + "\n")
    draw(curves, PICTURE)
    table = Table("curve", "from", "to", "exponent")
    for curve in curves.values():
        ends = [f"{x:g}: {y:.3g} {curve['unit']}" for x, y in (curve["points"][0], curve["points"][-1])]
        table.add_row(curve["title"], *ends, f"{curve['exponent']:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
