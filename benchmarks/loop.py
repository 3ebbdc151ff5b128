"""S11: what `make run` does after installing, in a fresh clone without caches; ``--repetitions 3`` for three seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import Meter
from benchmarks.orchestration import p2o
from benchmarks.row import OURS, REPOSITORY, CaseRuns, Row, Settings, Verdict

GOAL_S = 90.0
HARD = 0.6


def make_run(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """`p2o run`; then, not measured, GRPO on the same base."""
    from flows.versioning.pipeline import write_pipeline
    from stress.chaos import new_workspace
    from tasks.parameters.experiment import load_experiment

    root = new_workspace(folder / "clone")
    shutil.copyfile(REPOSITORY / "params.yaml", root / "params.yaml")
    params, seed = root / "params.yaml", settings["repetition"]
    text = params.read_text().replace("\nseed: 0", f"\nseed: {seed}")
    params.write_text(text.replace("\niterations: 10", f"\niterations: {settings['iterations']}"))
    write_pipeline(root, load_experiment(params).iterations)
    with meter:
        p2o(root, "run")
    p2o(root, "run", "--arm", "grpo")
    timings = json.loads(next((root / "data" / "timings").glob("*.json")).read_text())
    stages: dict[str, float] = {}
    for name, seconds in timings.items():
        stages[name.split("@")[0]] = round(stages.get(name.split("@")[0], 0.0) + seconds, 1)
    grpo = next((root / "experiments").iterdir())
    return {"seed": seed, "hard": _hard(root), "hard_grpo": _hard(grpo), "stages_s": stages}


def _hard(root: Path) -> float:
    runs = next((root / "data" / "runs").iterdir())
    last = max((folder for folder in runs.iterdir() if folder.name.isdigit()), key=lambda folder: int(folder.name))
    return float(json.loads((last / "metrics.json").read_text())["accuracy"]["hard"])


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """Nothing to compare with. What each seed reached is part of the goal."""
    numbers = [run.numbers for run in case.sides[OURS]]
    return {name: {str(run["seed"]): run[name] for run in numbers} for name in ("hard", "hard_grpo")}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    """Fast enough, and the README's claims on every seed."""
    (case,) = cases.values()
    numbers = [run.numbers for run in case.sides[OURS]]
    ratios = [GOAL_S / float(run["wall_s"]) for run in numbers]
    middle = case.median(OURS, "wall_s")
    claims = all(run["hard"] >= HARD and run["hard_grpo"] == 0 for run in numbers)
    return Verdict(
        ratio=GOAL_S / middle,
        spread=(min(ratios), max(ratios)),
        reached=middle <= GOAL_S and claims,
        limit_share=None,
        bound="by stage: see stages_s; prepare is the pre-training of the base policy",
        more={"median_s": middle, "claims_hold": claims, "ratio_is": "goal over measured seconds"},
    )


ROWS = {
    "S11": Row(
        name="S11",
        title="`make run`, installation aside, a seed a repetition",
        goal="≤ 90 s; hard ≥ 60 %, GRPO 0",
        cases={"params.yaml": {"iterations": 10, "limit_s": 1800}},
        small={"iterations": 1},
        sides={OURS: make_run},
        agree=agree,
        judge=_judge,
        repetitions=1,
    )
}
