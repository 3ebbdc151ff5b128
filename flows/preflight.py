"""What the doctor found, as tables."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.table import Table

from flows.display import console
from tasks.experiment import Experiment
from tasks.layout import Layout
from tasks.preflight.doctor import Health, examine
from tasks.preflight.dry_run import dry_run, stand_in

COLOURS = {Health.OK: "green", Health.UNSURE: "yellow", Health.FAILED: "red"}


def print_examination(experiment: Experiment, layout: Layout, sources: Path) -> bool:
    """The doctor's table; True when nothing failed."""
    checks = examine(experiment, layout, sources)
    table = Table(title=f"{experiment.experiment} on this machine", title_justify="left")
    for heading in ("check", "", "found", "mend"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mend = "" if check.health is Health.OK else check.mend
        table.add_row(check.what, f"[{COLOURS[check.health]}]{check.health.value}[/]", check.found, mend)
    console.print(table)
    failed = [check.what for check in checks if check.health is Health.FAILED]
    console.print(
        f"[red]{len(failed)} failed:[/] {', '.join(failed)}" if failed else "[green]This machine can run it.[/]"
    )
    return not failed


def print_dry_run(experiment: Experiment) -> None:
    """One iteration with a stand-in for the weights, in a folder that is deleted afterwards."""
    small, changed = stand_in(experiment)
    console.print(f"Dry run of {experiment.experiment}. Replaced: {'; '.join(changed)}.")
    with tempfile.TemporaryDirectory(prefix="p2o-dry-run-") as folder:
        facts = dry_run(small, Path(folder), lambda name, seconds: console.print(f"{name}: {seconds:.1f} s"))
    table = Table(title="One complete iteration", title_justify="left")
    table.add_column("what")
    table.add_column("happened")
    for what, happened in facts.items():
        table.add_row(what, happened)
    console.print(table)
