"""S8: what Prefect, DVC and MLflow add to a stage, against the same stages called one after the other.

Measured are the seconds between one stage's end and the beginning of the next, from a clock around the stages of both
sides. The first iteration's do not count, they are start-up: it imports MLflow and opens its database. The world is
stress/chaos.yaml's, its base made before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.measuring import Meter
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

STAGE_GOAL_S, SHARE_GOAL, ITERATION_S = 0.2, 0.03, 60.0


def world_base() -> Path:
    """The folder data/base of a prepared workspace, kept from run to run."""
    from benchmarks.inputs import KEPT
    from stress.chaos import new_workspace

    kept = KEPT / "world"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="p2o-world-") as scratch:
            root = new_workspace(Path(scratch) / "clone")
            p2o(root, "stage", "prepare")
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(root / "data" / "base", kept.with_name(".world.tmp"), dirs_exist_ok=True)
            kept.with_name(".world.tmp").rename(kept)
    return kept


def workspace(folder: Path, iterations: int) -> Path:
    """A clone's files, a small micro-world of so many iterations, its base already there."""
    from flows.versioning.pipeline import write_pipeline
    from stress.chaos import new_workspace

    base = world_base()
    root = new_workspace(folder / "clone")
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("iterations: 3", f"iterations: {iterations}"))
    write_pipeline(root, iterations)
    shutil.copytree(base, root / "data" / "base")
    return root


def p2o(root: Path, *words: str) -> None:
    """Run the console in a workspace. Raises RuntimeError with its last words."""
    from stress.chaos import environment

    done = subprocess.run(["p2o", *words], cwd=root, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"p2o {' '.join(words)}: status {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        )


class Spans:
    """Wraps :func:`tasks.running.runner.run_stage` and notes when each stage began and ended."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, float, float]] = []

    def __call__(self, stage: Any, experiment: Any, layout: Any, iteration: int, *rest: Any) -> Any:
        from tasks.running.runner import run_stage

        began = time.perf_counter()
        took = run_stage(stage, experiment, layout, iteration, *rest)
        self.noted.append((iteration if stage.name != "summary" else 0, began, time.perf_counter()))
        return took

    def between(self) -> dict[int, list[float]]:
        """Seconds between each stage's beginning and the end of the one before, by iteration from 1."""
        found: dict[int, list[float]] = {}
        for (_, _, ended), (iteration, began, _) in pairwise(self.noted):
            if iteration >= 1:
                found.setdefault(iteration, []).append(began - ended)
        return found


def _numbers(root: Path, spans: Spans, folder: Path) -> dict[str, Any]:
    from stress.chaos import digests

    (folder / "digests.json").write_text(json.dumps(digests(root)))
    found = spans.between()
    stages = [seconds for number, iteration in found.items() for seconds in iteration if number > 1]
    return {
        "stages": len(stages),
        "stages_an_iteration": max(map(len, found.values())),
        "overhead_s_a_stage": fmean(stages),
        "overhead_s_by_iteration": [round(sum(iteration), 3) for iteration in found.values()],
        "between_s": spans.noted[-1][2] - spans.noted[0][2],
    }


def orchestrated(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """What `p2o run` does (flows/console/training.py), in this process."""
    from flows.lifecycle.environment import prepare_environment

    root, spans = workspace(folder, settings["iterations"]), Spans()
    with meter:
        os.chdir(root)
        prepare_environment(root)
        from flows.lifecycle.server import start_server

        start_server()
        from flows import train as flow
        from flows.lifecycle.endings import flow_ends

        flow.run_stage = spans  # type: ignore[assignment]
        with flow_ends():
            flow.train(str(root), iterations=settings["run"], run_cache=True)
    return _numbers(root, spans, folder)


def bare(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """The stages alone."""
    from flows.lifecycle.environment import prepare_environment
    from tasks.parameters.experiment import load_experiment
    from tasks.registry import plan
    from tasks.running.layout import Layout
    from tasks.running.plan import run_plan
    from tasks.running.runner import write_parameters
    from tasks.running.runtime import Runtime

    root, spans = workspace(folder, settings["iterations"]), Spans()
    prepare_environment(root)
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    last = settings["run"] == settings["iterations"]
    with meter, Runtime() as runtime:
        write_parameters(experiment, layout)
        steps = [s for s in plan(experiment.iterations) if s[1] <= settings["run"] and (last or s[0].name != "summary")]
        for _ in run_plan(steps, experiment, layout, runtime, run=spans):
            pass
    return _numbers(root, spans, folder)


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """Every artefact has the same digest."""
    mine, other = (json.loads((case.sides[side][0].folder / "digests.json").read_text()) for side in (OURS, THEIRS))
    if mine != other:
        different = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
        raise Disagreement(f"{len(different)} artefacts differ, first {sorted(different)[:3]}")
    return {"equal_artefacts": len(mine)}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    added, shares = {}, {}
    for name, case in cases.items():
        added[name] = case.median(OURS, "overhead_s_a_stage") - case.median(THEIRS, "overhead_s_a_stage")
        shares[name] = added[name] * case.median(OURS, "stages_an_iteration") / ITERATION_S
    worst = max(added, key=added.__getitem__)
    ratio, spread = pooled(cases[worst].ratios("between_s"))
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=added[worst] <= STAGE_GOAL_S and shares[worst] <= SHARE_GOAL,
        limit_share=None,
        bound="DVC's commit of a stage, Prefect's task states and events; MLflow's points at an iteration's end",
        more={"added_s_a_stage": added, "share_of_an_iteration_of_60_s": shares},
    )


ROWS = {
    "S8": Row(
        name="S8",
        title="Prefect, DVC and MLflow around the stages, against the stages alone (wall clock, start-up aside)",
        goal="≤ 0.2 s a stage, ≤ 3 % of an iteration of 60 s; flat from 10 to 390 iterations",
        cases={"of 10 iterations": {"iterations": 10, "run": 3}, "of 390 iterations": {"iterations": 390, "run": 3}},
        small={"run": 2},
        sides={OURS: orchestrated, THEIRS: bare},
        agree=agree,
        judge=_judge,
        repetitions=1,
    )
}
