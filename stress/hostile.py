"""Does the verifier survive what is made to kill it, and do honest answers get on beside it?

    python -m stress.hostile [OUTPUT] [--timeout SECONDS] [--math FILE]

judges the corpus of :mod:`stress.hostile_corpus` one answer a call, so that every verdict has a time of its own,
and writes the table to OUTPUT (Markdown). With MATH-500's file its answers are the honest ones. Exit status 1 when a
verdict took longer than the time-out plus a second, a reward was given, or honest answers fell below 70 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from p2o_core.types import Verdict, VerdictStatus
from p2o_core.verify import Verifier
from stress.hostile_corpus import FAMILIES, Hostile, box, corpus, hanging, honest

GRACE_S = 1.0
NEEDED = 0.7
ROUNDS = 5


@dataclass(frozen=True)
class Judged:
    """A hostile answer's verdict, its seconds from call to return, and the workers it cost."""

    hostile: Hostile
    verdict: Verdict
    seconds: float
    replaced: int


@dataclass(frozen=True)
class Throughput:
    """Honest answers a second until the last had its verdict, alone and beside hanging ones (1 %), and the ratio."""

    alone: float
    beside: float
    late: int

    @property
    def ratio(self) -> float:
        return self.beside / self.alone


class PeakMemory:
    """Watches this process's verifiers; ``bytes`` is the largest resident set one of their processes ever had."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for pid in verifier_processes():
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # it has ended meanwhile
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.bytes = max(self.bytes, int(line.split()[1]) * 1024)


def verifier_processes() -> list[int]:
    """Process ids of the hosts and workers of this process's own verifiers; whatever else it started is none."""
    hosts = []
    for pid in children_by_parent().get(os.getpid(), []):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"p2o_core.verify.host" in Path(f"/proc/{pid}/cmdline").read_bytes():
                hosts.append(pid)
    return [*hosts, *(pid for host in hosts for pid in descendants(host))]


def descendants(pid: int) -> list[int]:
    """Process ids below a process, children first; zombies are none."""
    children = children_by_parent()
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(folder.name))
    return children


def judge_each(answers: Sequence[Hostile], timeout_s: float) -> list[Judged]:
    """One call an answer, one worker: nothing of ours runs beside it."""
    rows = []
    with Verifier(workers=1, timeout_s=timeout_s) as verifier:
        verifier.verify([("\\boxed{1}", "1")])  # workers are up
        for hostile in answers:
            started = time.monotonic()
            (verdict,) = verifier.verify([(hostile.response, hostile.gold)])
            rows.append(Judged(hostile, verdict, time.monotonic() - started, verifier.effort.replaced))
    return rows


def waited_s() -> float:
    """Seconds since start in which some process of this machine waited for a processor; what disturbs our timings."""
    return int(Path("/proc/pressure/cpu").read_text().split()[4].removeprefix("total=")) / 1e6


def throughput(pairs: Sequence[tuple[str, str]], timeout_s: float, rounds: int = ROUNDS) -> Throughput:
    """Honest pairs alone and among 1 % of hanging ones, in turns, medians. Until the first pass is over: then all
    honest ones have their verdicts but those that outlasted the first look themselves (``late``, of all rounds)."""
    bad = hanging(max(1, len(pairs) // 100))
    mixed = list(pairs)
    for i, pair in enumerate(bad):
        mixed.insert((i * len(mixed)) // len(bad), pair)
    alone, beside, late = [], [], 0
    with Verifier(workers=2, timeout_s=timeout_s) as verifier:
        verifier.verify(pairs)
        for _ in range(rounds):
            verifier.verify(pairs)
            alone.append(len(pairs) / verifier.effort.look_s)
            late += verifier.effort.late
            verifier.verify(mixed)
            beside.append(len(pairs) / verifier.effort.look_s)
            late += verifier.effort.late - len(bad)
    return Throughput(median(alone), median(beside), late)


def math_pairs(path: Path) -> list[tuple[str, str]]:
    """MATH's answers against themselves, and each against another's."""
    golds = [str(json.loads(line)["answer"]) for line in path.read_text().splitlines()]
    others = random.Random(1).sample(golds, len(golds))
    return list(dict.fromkeys([(box(g), g) for g in golds] + [(box(o), g) for o, g in zip(others, golds, strict=True)]))


def table(rows: Sequence[Judged]) -> str:
    """Family by status, in Markdown."""
    lines = ["| family | answers | " + " | ".join(VerdictStatus) + " | slowest, s | workers replaced |"]
    lines.append("|---" * (4 + len(VerdictStatus)) + "|")
    for family in [*FAMILIES, "all"]:
        part = [row for row in rows if family in (row.hostile.family, "all")]
        counts = Counter(row.verdict.status for row in part)
        numbers = " | ".join(str(counts[status]) for status in VerdictStatus)
        slowest, replaced = max(row.seconds for row in part), sum(row.replaced for row in part)
        lines.append(f"| {family} | {len(part)} | {numbers} | {slowest:.2f} | {replaced} |")
    return "\n".join(lines)


def main() -> int:
    """Run, print and write; 0 when all is as it has to be."""
    parser = argparse.ArgumentParser(description="The verifier on hostile answers")
    parser.add_argument("output", type=Path, nargs="?", help="Markdown file to write")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds an answer may take")
    parser.add_argument("--math", type=Path, help="math500.jsonl, for the honest answers")
    arguments = parser.parse_args()
    console = Console()
    started, waited = time.monotonic(), waited_s()
    with PeakMemory() as peak:
        rows = judge_each(corpus(), arguments.timeout)
    busy = (waited_s() - waited) / (time.monotonic() - started)
    slowest = max(rows, key=lambda row: row.seconds)
    rewarded = [row for row in rows if row.verdict.reward]
    lines = [table(rows), ""]
    lines.append(f"Slowest verdict {slowest.seconds:.2f} s (time-out {arguments.timeout} s): {slowest.hostile.family}.")
    late = sum(row.seconds > arguments.timeout + GRACE_S for row in rows)
    middle = median(row.seconds for row in rows if row.verdict.status is VerdictStatus.TIMEOUT)
    lines.append(f"Later than time-out + {GRACE_S:g} s: {late}. Median of the time-outs: {middle:.2f} s.")
    lines.append(f"Share of the time in which something on the machine waited for a processor: {busy:.0%}.")
    lines.append(f"Largest resident set of a process: {peak.bytes / 2**20:.0f} MiB.")
    sets = {"generated": honest(1000)}
    if arguments.math is not None:
        sets["MATH-500"] = math_pairs(arguments.math)
    ratios = []
    for name, pairs in sets.items():
        speed = throughput(pairs, arguments.timeout)
        ratios.append(speed.ratio)
        lines.append(
            f"Honest answers ({name}, {len(pairs)}) a second: {speed.alone:.0f} alone, {speed.beside:.0f} beside 1 % "
            f"hanging ones, ratio {speed.ratio:.2f}; {speed.late} needed the second pass."
        )
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    console.print(*(f"rewarded: {row.hostile.response[:100]!r}" for row in rewarded), sep="\n", markup=False)
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n")
    return 0 if slowest.seconds <= arguments.timeout + GRACE_S and not rewarded and min(ratios) >= NEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
