"""What stands between an update and its policy: numbers that are none, and skills that are gone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from p2o_core.evaluation import probe_skills
from p2o_core.mining import rewards_by_problem
from p2o_core.schemas import write_rows
from p2o_core.types import Judged, Problem
from tasks.health import TrainingStopped
from tasks.running.stage import StageIO

if TYPE_CHECKING:
    from p2o_core.finite import NotFinite


def rejected(io: StageIO, error: NotFinite) -> TrainingStopped:
    """Save the rows an update stopped at; returns the error to raise."""
    from p2o_core.groups import TrainingSample

    path = io.layout.rejected(io.iteration)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, error.samples, TrainingSample)
    return TrainingStopped(
        f"iteration {io.iteration}, distill: {error}. The rows are in {path}. Mend: look at their log-probs, or lower "
        "distill.learning_rate, with which every update is made again."
    )


def check_skills(io: StageIO, problems: Mapping[str, Problem], judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Roll problems that the policy solved before the update out again, and give the configured answer to a loss:
    ``rolled_back`` puts the policy that the iteration started from into the output. None: nothing was probed.

    Raises:
        TrainingStopped: the answer is to stop.
    """
    config = io.experiment.health
    skills = probe_skills(
        io.engine(policy=io.outputs["policy"]),
        io.verifier(),
        problems,
        rewards_by_problem(judged),
        io.experiment.rollout,
        config.skill_probe,
        io.seed("probe"),
    )
    if skills is None:
        return None
    answer = "kept"
    if skills.lost(config.skill_margin):
        answer = {"warn": "warned", "roll_back": "rolled_back", "stop": "stopped"}[config.on_lost_skills]
    if answer == "stopped":
        raise TrainingStopped(
            f"iteration {io.iteration}, distill: accuracy on {skills.problems} problems solved before the update went "
            f"from {skills.before:.2f} to {skills.after:.2f}, more than health.skill_margin={config.skill_margin}. The "
            "policy of the last iteration is untouched. Mend: lower distill.learning_rate, or health.on_lost_skills: "
            "roll_back or warn."
        )
    if answer == "rolled_back":
        shutil.rmtree(io.outputs["policy"])
        shutil.copytree(io.inputs["policy"], io.outputs["policy"])
        io.runtime.forget_policies()
    return asdict(skills) | {"answer": answer}
