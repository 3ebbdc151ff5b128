"""What the doctor found, as tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from flows.display import console
from flows.preflight.doctor import Health, examine
from flows.preflight.dry_run import dry_run, stand_in
from flows.preflight.scaling import spread
from flows.preflight.shapes import GIB, engine_memory, shape_of, trainer_memory
from flows.preflight.speed import Roofline, Speed, calibrate, machine_named
from flows.preflight.work import Assumptions, Work, count, heldout_size
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment
from tasks.running.layout import Layout

COLOURS = {Health.OK: "green", Health.UNSURE: "yellow", Health.FAILED: "red", Health.REFUSED: "red"}


def print_examination(experiment: Experiment, layout: Layout, sources: Path) -> int:
    """The doctor's table. Returns the exit status: 0, 1 when the machine lacks something, 2 when input is bad."""
    checks = examine(experiment, layout, sources)
    table = Table(title=f"{experiment.experiment} on this machine", title_justify="left")
    for heading in ("check", "", "found", "mend"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mend = "" if check.health is Health.OK else check.mend
        table.add_row(check.what, f"[{COLOURS[check.health]}]{check.health.value}[/]", check.found, mend)
    console.print(table)
    failed = [check.what for check in checks if check.health in (Health.FAILED, Health.REFUSED)]
    console.print(
        f"[red]{len(failed)} failed:[/] {', '.join(failed)}" if failed else "[green]This machine can run it.[/]"
    )
    refused = [check for check in checks if check.health is Health.REFUSED]
    for check in refused:  # whole: the table's columns are narrow
        print(f"{check.found} Mend: {check.mend}", file=sys.stderr)
    return 2 if refused else int(bool(failed))


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


def print_plan(
    experiment: Experiment,
    layout: Layout,
    machine: str,
    *,
    tokens: float | None,
    hard: float,
    signal: float,
    gpus: Sequence[int] = (),
) -> None:
    """What the experiment takes, stage by stage, on a named machine or this one (``here``), and how it spreads over
    ``gpus`` of a named one. Raises BadInput."""
    shape = shape_of(experiment, layout)
    if shape is None:
        raise BadInput("the model's shape is not known. Mend: add it to recipes/models.yaml, or prepare the workspace.")
    given = Assumptions(tokens, hard_share=hard, signal_share=signal) if tokens else None
    roofline: Roofline | None = None
    if machine == "here" and gpus:
        raise BadInput("--gpus spreads over machines of a data sheet, and this one is measured. Mend: --machine NAME.")
    if machine == "here":
        speed, assumed = calibrate(experiment, layout, given)
        assumed = replace(assumed, hard_share=hard, signal_share=signal)
    else:
        named = machine_named(machine, layout.workspace)
        assumed = given or Assumptions(experiment.rollout.max_new_tokens / 2, hard_share=hard, signal_share=signal)
        roofline = Roofline(experiment, shape, named, assumed)
        speed = roofline.speed()
    work = count(experiment, heldout_size(experiment, layout), assumed)
    table = Table(title=f"{experiment.experiment} on {machine} ({speed.source})", title_justify="left")
    for heading in ("stage", "times", "completions", "tokens written", "tokens × passes", "time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    seconds = [speed.seconds(stage) for stage in work]
    for stage, taken in zip(work, seconds, strict=True):
        amounts = (f"{amount:,.0f}" for amount in (stage.runs, stage.completions, stage.tokens, stage.passes))
        table.add_row(stage.stage, *amounts, _duration(taken))
    written, passes = sum(stage.tokens for stage in work), sum(stage.passes for stage in work)
    table.add_row("all", "", "", f"{written:,.0f}", f"{passes:,.0f}", _duration(sum(seconds)), style="bold")
    console.print(table)
    console.print(_premises(assumed, speed))
    trainer, engine = trainer_memory(experiment, shape), engine_memory(experiment, shape)
    console.print(f"Memory: trainer about {trainer}; engine at least {engine}.")
    if roofline is not None and trainer.total > roofline.machine.memory_gib * GIB:
        console.print(
            f"[red]That does not fit into {machine}'s {roofline.machine.memory_gib:g} GiB.[/] Mend: a larger machine, "
            "an adapter (--arm p2o-lora), or smaller micro-batches (distill.tokens_per_microbatch)."
        )

    if roofline is not None and gpus:
        console.print(_spreading(roofline, work, gpus))


def _spreading(roofline: Roofline, work: Sequence[Work], gpus: Sequence[int]) -> Table:
    """A line for each number of accelerators."""
    spreads, alone = [spread(roofline, work, number) for number in gpus], spread(roofline, work, 1)
    stages = [stage.stage for stage in alone.stages]
    table = Table(title="Spread over accelerators of this kind", title_justify="left")
    for heading in ("GPUs", *stages, "swaps", "all", "efficiency", "sent a swap", "does not divide any more"):
        table.add_column(heading, justify="right", overflow="fold")
    for on in spreads:
        times = (_duration(stage.seconds) for stage in on.stages)
        sent = f"{on.moved * on.gpus / GIB:,.1f} GiB"
        table.add_row(
            f"{on.gpus:,}",
            *times,
            _duration(on.swaps_s),
            _duration(on.seconds),
            f"{on.efficiency(alone):.0%}",
            sent,
            on.bound,
        )
    return table


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def _premises(assumed: Assumptions, speed: Speed) -> str:
    return (
        f"Taken for granted: {assumed.completion_tokens:,.0f} tokens a completion, {assumed.prompt_tokens:,.0f} a "
        f"prompt, {assumed.hard_share:.0%} of the problems with a template, {assumed.signal_share:.0%} of the groups "
        f"with a signal; {speed.decode:,.0f} tokens/s written, {speed.forward:,.0f} tokens/s a forward pass; start-up "
        "of engine and verifier left out."
    )
