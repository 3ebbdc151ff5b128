"""S10: `p2o run` from its start to the first rollout with warm caches, and with nothing to do. Wall clock: most is
imports and the start of Prefect's server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import Meter
from benchmarks.orchestration import p2o, workspace
from benchmarks.row import OURS, CaseRuns, Row, Settings, Verdict

GOALS_S = {"to the first rollout": 8.0, "nothing to do": 5.0}
LIMIT_S = 300.0


def start(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """In a workspace whose run is done: once more, and then with another seed, whose rollouts are not there yet."""
    from stress.chaos import environment

    root = workspace(folder, 1)
    p2o(root, "run")
    began = time.perf_counter()
    p2o(root, "run")
    idle_s = time.perf_counter() - began
    with (folder / "run.log").open("w") as log, meter:
        process = subprocess.Popen(
            ["p2o", "run", "--seed", "1"], cwd=root, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            _first_rollout(root, process, folder / "run.log")
            first_s = time.perf_counter() - began - idle_s
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"nothing to do": idle_s, "to the first rollout": first_s}


def _first_rollout(root: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + LIMIT_S
    while not list(root.glob("experiments/*/data/runs/*/1/.rollout.tmp")):
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"no rollout began:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    (case,) = cases.values()
    middle = {name: case.median(OURS, name) for name in GOALS_S}
    worst = min(GOALS_S, key=lambda name: GOALS_S[name] / middle[name])
    ratios = [GOALS_S[worst] / float(run.numbers[worst]) for run in case.sides[OURS]]
    return Verdict(
        ratio=GOALS_S[worst] / middle[worst],
        spread=(min(ratios), max(ratios)),
        reached=all(middle[name] <= goal for name, goal in GOALS_S.items()),
        limit_share=None,
        bound="imports (Prefect, MLflow, torch, transformers) and the start of Prefect's server",
        more={"median_s": middle, "goals_s": GOALS_S, "ratio_is": "goal over measured seconds"},
    )


ROWS = {
    "S10": Row(
        name="S10",
        title="`p2o run` to the first rollout, and with nothing to do",
        goal="≤ 8 s with warm caches; ≤ 5 s",
        cases={"a small micro-world": {}},
        small={},
        sides={OURS: start},
        agree=lambda case: {},
        judge=_judge,
        repetitions=1,
    )
}
