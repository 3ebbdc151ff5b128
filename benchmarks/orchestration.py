"""S8: what Prefect, DVC and MLflow add to a stage, against the same stages called one after the other.

The seconds between one stage's end and the next one's, less what the next one took itself, come from the files that
both sides write: the manifests' times and data/timings. The world is stress/chaos.yaml's, its base made before.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
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


def overheads(root: Path, iterations: int) -> list[list[float]]:
    """Seconds beside each stage, iteration by iteration; what starts the run comes before them."""
    from tasks.parameters.experiment import load_experiment
    from tasks.registry import plan
    from tasks.running.layout import Layout
    from tasks.running.manifests import manifest_path

    layout = Layout(root, load_experiment(root / "params.yaml").experiment)
    timings = json.loads(layout.timings.read_text())
    before: float | None = None
    found: list[list[float]] = [[] for _ in range(iterations)]
    for stage, iteration in plan(iterations):
        manifest = manifest_path(stage.output_folder(layout, iteration), stage.name)
        if not manifest.exists():
            continue
        ended = manifest.stat().st_mtime
        if before is not None and iteration >= 1 and stage.in_chain:
            found[iteration - 1].append(ended - before - timings[f"{stage.name}@{iteration}"])
        before = ended
    return found


def _numbers(root: Path, settings: Settings, folder: Path) -> dict[str, Any]:
    from stress.chaos import digests

    (folder / "digests.json").write_text(json.dumps(digests(root)))
    found = overheads(root, settings["run"])
    stages = [seconds for iteration in found for seconds in iteration]
    return {
        "stages": len(stages),
        "stages_an_iteration": len(found[0]),
        "overhead_s_a_stage": fmean(stages),
        "overhead_s_by_iteration": [round(sum(iteration), 3) for iteration in found],
    }


def orchestrated(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    root = workspace(folder, settings["iterations"])
    with meter:
        p2o(root, "run", "--no-run-cache", "--iterations", str(settings["run"]))
    return _numbers(root, settings, folder)


def bare(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """The stages alone."""
    from flows.lifecycle.environment import prepare_environment
    from tasks.parameters.experiment import load_experiment
    from tasks.registry import plan
    from tasks.running.layout import Layout
    from tasks.running.plan import run_plan
    from tasks.running.runner import write_parameters
    from tasks.running.runtime import Runtime

    root = workspace(folder, settings["iterations"])
    prepare_environment(root)
    experiment = load_experiment(root / "params.yaml")
    layout = Layout(root, experiment.experiment)
    with meter, Runtime() as runtime:
        write_parameters(experiment, layout)
        steps = [
            (stage, iteration)
            for stage, iteration in plan(experiment.iterations)
            if iteration <= settings["run"] and (stage.name != "summary" or settings["run"] == settings["iterations"])
        ]
        for _ in run_plan(steps, experiment, layout, runtime):
            pass
    return _numbers(root, settings, folder)


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
    ratio, spread = pooled(cases[worst].ratios("wall_s"))
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
        title="Prefect, DVC and MLflow around the stages, against the stages alone (wall, start-up included)",
        goal="≤ 0.2 s a stage, ≤ 3 % of an iteration of 60 s; flat from 10 to 390 iterations",
        cases={"of 10 iterations": {"iterations": 10, "run": 3}, "of 390 iterations": {"iterations": 390, "run": 3}},
        small={"run": 1},
        sides={OURS: orchestrated, THEIRS: bare},
        agree=agree,
        judge=_judge,
        repetitions=3,
    )
}
