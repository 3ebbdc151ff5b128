"""kill -9 at random moments of an embedded run, through all three doors: is anything lost or changed?

    python -m stress.chaos [--kills 100] [--seed 0] [--report chaos.md]

trains a small micro-world undisturbed, then once more under kills of the whole process group. When a run gets to its
end before the kills are used up, its last iterations are deleted and made again. In the end every artefact has to have
the undisturbed run's digest, and MLflow every point once. Exit status 1 otherwise.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flows.versioning.pipeline import write_pipeline
from p2o_core.digests import digest
from tasks.parameters.experiment import load_experiment
from tasks.registry import plan
from tasks.running.layout import Layout
from tasks.running.manifests import read_manifest
from tasks.running.runner import is_fresh

REPOSITORY = Path(__file__).parents[1]
PARAMS = Path(__file__).with_name("chaos.yaml")
DOORS = {"prefect": 0.4, "dvc": 0.2, "stage": 0.4}
"""How often each door is taken."""
LONGEST_S = {"prefect": 20.0, "dvc": 12.0, "stage": 6.0}
"""Seconds after its start until which a door is killed: about what a whole run or stage takes from there."""
LIMIT_S = 1200.0


@dataclass
class KillCounts:
    """What was done to a run: kills by door and by where they hit, seconds of every killed process, deleted
    iterations, and processes that failed by themselves."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost_s: list[float] = field(default_factory=list)
    total_s: float = 0.0
    passes: int = 1
    failures: list[str] = field(default_factory=list)


def new_workspace(folder: Path) -> Path:
    """What a clone holds, with this benchmark's params.yaml."""
    folder.mkdir(parents=True)
    for name in ("mlproject", "recipes"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    shutil.copyfile(PARAMS, folder / "params.yaml")
    write_pipeline(folder, load_experiment(PARAMS).iterations)
    shutil.copytree(REPOSITORY / "data" / "sources", folder / "data" / "sources")
    for command in ("git init -q", "dvc init -q"):
        subprocess.run(command.split(), cwd=folder, check=True, env=environment())
    return folder


def environment() -> dict[str, str]:
    """Stores inside the workspace, whatever is set outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def kill_at_random(workspace: Path, kills: int, seed: int, console: Console, minutes: float = math.inf) -> KillCounts:
    """Kill, start again, until ``kills`` processes are dead or ``minutes`` are over; then let the run end."""
    rng, done, deadline = random.Random(seed), KillCounts(), time.monotonic() + 60 * minutes
    for _ in track(range(kills), description="kills", console=console, disable=not console.is_terminal):
        killed = time.monotonic() > deadline
        while not killed:
            if next_step(workspace) is None:
                delete_from(workspace, rng)
                done.passes += 1
            door = rng.choices(list(DOORS), list(DOORS.values()))[0]
            killed = _start_and_kill(workspace, door, rng.uniform(0.0, LONGEST_S[door]), done)
    started = time.monotonic()
    _run_whole(workspace)
    done.total_s += time.monotonic() - started
    return done


def _start_and_kill(workspace: Path, door: str, after_s: float, done: KillCounts) -> bool:
    """Whether it lived until the kill; it may have ended by itself before."""
    started = time.monotonic()
    with (workspace / "chaos.log").open("w") as log:
        process = subprocess.Popen(
            command_of(door, workspace),
            cwd=workspace,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            where = at_work(workspace)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done.kills[door, where] += 1
            done.lost_s.append(time.monotonic() - started)
    done.total_s += time.monotonic() - started
    if process.returncode not in (0, -signal.SIGKILL):
        done.failures.append(f"{door}: {(workspace / 'chaos.log').read_text()[-1500:]}")
    return process.returncode == -signal.SIGKILL


def command_of(door: str, workspace: Path) -> list[str]:
    """One of the three doors; ``stage`` runs the next stage that is not finished."""
    if door == "prefect":
        return ["p2o", "run", "--no-run-cache"]
    if door == "dvc":
        return ["dvc", "repro", "--no-run-cache"]
    name, iteration = next_step(workspace) or ("summary", 0)
    return ["p2o", "stage", name, "--iteration", str(iteration)]


def next_step(workspace: Path) -> tuple[str, int] | None:
    """The first stage that is not finished, None when all are."""
    experiment = load_experiment(workspace / "params.yaml")
    layout = Layout(workspace, experiment.experiment)
    steps = plan(experiment.iterations)
    return next(((s.name, i) for s, i in steps if not is_fresh(s, experiment, layout, i)), None)


def at_work(workspace: Path) -> str:
    """The stage whose scratch folder is there, else between stages (start-up, recording)."""
    scratch = sorted(path.name for path in (workspace / "data").rglob(".*.tmp") if path.is_dir())
    return scratch[0][1:].removesuffix(".tmp") if scratch else "between stages"


def delete_from(workspace: Path, rng: random.Random) -> None:
    """Some last iterations, and the curves over all of them."""
    experiment = load_experiment(workspace / "params.yaml")
    layout = Layout(workspace, experiment.experiment)
    for iteration in range(rng.randint(1, experiment.iterations), experiment.iterations + 1):
        shutil.rmtree(layout.iteration(iteration), ignore_errors=True)
    shutil.rmtree(layout.report, ignore_errors=True)


def _run_whole(workspace: Path) -> None:
    done = subprocess.run(
        ["p2o", "run", "--no-run-cache"],
        cwd=workspace,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise SystemExit(f"the run does not get to its end:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def digests(workspace: Path) -> dict[str, str]:
    """Workspace-relative path to sha256, over every manifest, and of the manifests themselves."""
    found: dict[str, str] = {}
    for manifest in sorted((workspace / "data").rglob("*.manifest.json")):
        found |= read_manifest(manifest).outputs
        found[manifest.relative_to(workspace).as_posix()] = digest(manifest)
    return {name: digest(workspace / name) for name in found}


def points(workspace: Path) -> Counter[tuple[str, str, int]]:
    """How often MLflow has each (iteration of the run or parent, metric, step); seconds are no part of it."""
    with sqlite3.connect(workspace / "mlflow.db") as database:
        rows = database.execute(
            "select coalesce(t.value, 'parent'), m.key, m.step from metrics m left join tags t "
            "on t.run_uuid = m.run_uuid and t.key = 'p2o.iteration' where m.key not like 'seconds/%'"
        ).fetchall()
    return Counter((run, key, int(step)) for run, key, step in rows)


def main(
    kills: Annotated[int, typer.Option(help="Processes to kill.")] = 100,
    seed: Annotated[int, typer.Option(help="Of doors and moments.")] = 0,
    minutes: Annotated[float, typer.Option(help="After so many no more kills.")] = math.inf,
    report: Annotated[Path | None, typer.Option(help="Markdown file for the table.")] = None,
) -> None:
    """The benchmark."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="p2o-chaos-") as folder:
        calm, wild = (new_workspace(Path(folder) / name) for name in ("undisturbed", "killed"))
        started = time.monotonic()
        _run_whole(calm)
        calm_s = time.monotonic() - started
        done = kill_at_random(wild, kills, seed, console, minutes)
        expected, found = digests(calm), digests(wild)
        told, missing = points(wild), points(calm) - points(wild)
        changed = [name for name in expected if found.get(name) != expected[name]]
        left = [path for path in (wild / "data").rglob(".*.tmp")]
    twice = [point for point, count in told.items() if count > 1]
    lines = summary(done, calm_s, len(expected), changed, len(twice), sum(missing.values()), len(left))
    console.print(table(done), *lines, sep="\n")
    for failure in done.failures:
        console.print(f"a door failed by itself: {failure}", markup=False)
    if report is not None:
        report.write_text(markdown(done) + "\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    raise typer.Exit(1 if changed or twice or missing or left or done.failures else 0)


def summary(
    done: KillCounts, calm_s: float, artefacts: int, changed: list[str], twice: int, missing: int, left: int
) -> list[str]:
    """What it came to, a line each."""
    return [
        f"{sum(done.kills.values())} kills; {artefacts} artefacts, {len(changed)} lost or changed {changed[:3] or ''}",
        f"MLflow: {twice} points twice, {missing} missing; {left} scratch folders left; "
        f"{len(done.failures)} doors failed by themselves",
        f"undisturbed {calm_s:.0f} s; killed processes lived {median(done.lost_s):.1f} s (median), "
        f"{sum(done.lost_s):.0f} s in all; everything together {done.total_s:.0f} s for {done.passes} passes over the "
        "iterations deleted",
    ]


def _counts(done: KillCounts) -> list[tuple[str, list[int]]]:
    places = sorted({where for _, where in done.kills})
    return [(where, [done.kills[door, where] for door in DOORS]) for where in places]


def table(done: KillCounts) -> Table:
    """Where the kills hit, for the console."""
    shown = Table("hit", *DOORS, "all", title="Kills")
    for where, counts in _counts(done):
        shown.add_row(where, *map(str, counts), str(sum(counts)))
    return shown


def markdown(done: KillCounts) -> str:
    """The same for docs/results.md."""
    lines = [f"| hit | {' | '.join(DOORS)} | all |", "|---|" + "---|" * (len(DOORS) + 1)]
    lines += [f"| {where} | {' | '.join(map(str, counts))} | {sum(counts)} |" for where, counts in _counts(done)]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
