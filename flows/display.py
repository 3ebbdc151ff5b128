"""What people see: progress bars, the table of iterations, and loud words where nothing was learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from p2o_core.schemas import read_record
from p2o_core.types import TemplateSearch
from tasks.running.layout import Layout
from tasks.running.runner import read_timings
from tasks.summary import experiment_rows

console = Console()
if not console.is_terminal:
    console = Console(width=150)  # logs and pipes: wide enough for the table

Row = dict[str, Any]
Column = tuple[str, str, str]  # heading, key of the row, format
TRAINING: tuple[Column, ...] = (
    ("it", "iteration", "d"),
    ("solved", "train/solve_rate", ".2f"),
    ("all-fail", "train/all_fail", ".2f"),
    ("hard set", "hard_set", "d"),
    ("templates", "templates_kept", "d"),
    ("best", "best_template_score", ".2f"),
)
COST: tuple[Column, ...] = (
    ("rollout tok", "tokens/bare_and_templated", ",d"),
    ("GEPA tok", "tokens/gepa", ",d"),
)


def publish_table(name: str, rows: list[Row], description: str) -> None:
    """Rows as an artefact in Prefect's page, whose keys know letters, digits and dashes only."""
    from prefect.artifacts import create_table_artifact  # `p2o table` comes by here too and does without Prefect

    from flows.progress import artifact_key

    create_table_artifact(key=artifact_key(name), table=rows, description=description)


@contextmanager
def stage_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one stage; silent where the output is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table_rows(layout: Layout, last_iteration: int) -> list[Row]:
    """A row an iteration as the table and the Prefect artefacts show it."""
    timings = read_timings(layout)
    rows = []
    for row in experiment_rows(layout.run, last_iteration):
        iteration = row["iteration"]
        templates = layout.iteration(iteration) / "templates.json"
        best = read_record(templates, TemplateSearch).best if templates.exists() else None
        if "tokens/rollout" in row:
            row["tokens/bare_and_templated"] = row["tokens/rollout"] + row["tokens/templated"]
        rows.append(
            row | {"best_template": best.text.replace("\n", " ") if best else "", "seconds": timings.get(iteration, {})}
        )
    return rows


def print_iterations(layout: Layout, last_iteration: int) -> None:
    """The result table, the best template and the seconds of every iteration."""
    rows = table_rows(layout, last_iteration)
    table = Table(title=f"{layout.experiment}: held-out accuracy is at the bare prompt", title_justify="left")
    tiers = sorted({key for row in rows for key in row if key.startswith("accuracy/")})
    columns = (*TRAINING, *((key.removeprefix("accuracy/"), key, ".3f") for key in tiers), *COST)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(format(row[key], spec) if key in row else "–" for _, key, spec in columns))
    console.print(table)
    details = Table(title="Best template and seconds a stage", title_justify="left")
    for heading in ("it", "best template", "seconds a stage"):
        details.add_column(heading)
    for row in rows:
        seconds = "  ".join(f"{stage} {taken:.1f}" for stage, taken in row["seconds"].items())
        details.add_row(str(row["iteration"]), row["best_template"] or "–", seconds or "–")
    console.print(details)
    _warn_without_signal(layout, [row for row in rows if "optimizer_steps" in row])


def _warn_without_signal(layout: Layout, rows: list[Row]) -> None:
    silent = [row["iteration"] for row in rows if row["groups_with_signal"] == 0]
    if rows and len(silent) == len(rows):
        console.print(
            Panel(
                "In no iteration did any group carry a signal: every group was all right or all wrong, every "
                "advantage was zero, and the policy is what it was before. Mend: easier problems, more rollouts a "
                "problem, or templates (evolve.enabled: true).",
                title="NOTHING WAS LEARNT",
                border_style="bold red",
            )
        )
    elif silent:
        console.print(f"[yellow]No group carried a signal in iterations {silent}: the policy did not change there.[/]")
