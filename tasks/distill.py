"""distill: roll the hard problems out under their templates, then update the policy at the bare prompt."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from p2o_core.evaluation import probe_skills
from p2o_core.mining import rewards_by_problem
from p2o_core.rollout import gold_answers, judge, mean_entropy, reuse_winners, sample_templated
from p2o_core.schemas import read_problems, read_rows, write_record, write_rows
from p2o_core.transfer import TemplatedOutcome, templated_outcomes
from p2o_core.types import Assignment, Completion, Judged, Problem
from p2o_core.update_report import IterationUpdate, SkillCheck
from tasks.running.rejected import rejected_update
from tasks.running.stage import Artifact, Stage, StageIO, TrainingStopped

if TYPE_CHECKING:
    from p2o_core.groups import Group
    from p2o_core.sharding.job import UpdateJob, UpdateResult

CHECKPOINTS = "update"
"""Folder of the update's checkpoints among the stage's units."""


def run(io: StageIO) -> None:
    """Write ``templated.parquet``, its verdicts and ``transfer.parquet`` (what each templated rollout says about its
    template), ``policy/``, ``optimizer/`` and ``update.json``."""
    from p2o_core.groups import build_groups
    from p2o_core.policy import chat_of

    rollout, distill = io.experiment.rollout, io.experiment.distill
    train = read_problems(io.inputs["train"])
    problems = {problem.id: problem for problem in train}
    bare, verdicts = read_rows(io.inputs["rollouts"], Completion), read_rows(io.inputs["verdicts"], Judged)

    planned = read_rows(io.inputs["assignment"], Assignment) if distill.enabled else []
    reused = reuse_winners(read_rows(io.inputs["winners"], Completion), planned, rollout) if distill.reuse else []
    sampled = sample_templated(io.engine(), problems, planned, reused, rollout, io.seed("templated"))
    templated = [*reused, *sampled]
    judged = judge(io.verifier(), templated, gold_answers(train))
    io.counts["templated"] = write_rows(io.outputs["templated"], templated, Completion)
    write_rows(io.outputs["templated_verdicts"], judged, Judged)

    chat = chat_of(io.inputs["policy"], io.inputs["base"])
    groups = build_groups(chat, problems, [*bare, *templated], [*verdicts, *judged], distill, rollout.prompt)
    result = _update(io, groups)
    report, optimizer_steps = result.report, result.optimizer_steps
    write_rows(io.outputs["transfer"], templated_outcomes(templated, judged, result.log_ratios), TemplatedOutcome)
    skills = _check_skills(io, problems, verdicts) if report.steps else None
    if skills is not None and skills.answer == "rolled_back":
        optimizer_steps -= report.steps  # a policy that was taken back has the optimiser it started with
    tokens = sum(len(completion.token_ids) for completion in sampled)  # the search paid for the reused ones
    io.counts |= {"tokens": tokens, "steps": report.steps}
    update = IterationUpdate(
        **vars(report),
        optimizer_steps=optimizer_steps,
        templated_solve_rate=sum(j.reward for j in judged) / len(judged) if judged else 0.0,
        templated_tokens=tokens,
        reused=len(reused),
        entropy=mean_entropy(bare),
        skills=skills,
        templated_prompt_tokens=sum(completion.prompt_tokens for completion in sampled),
    )
    write_record(io.outputs["update"], update)


def _update(io: StageIO, groups: Sequence[Group]) -> UpdateResult:
    """Train the policy and save it with its optimiser, in this process or in ``policy.processes`` others. All of them
    go on from the same checkpoints."""
    from p2o_core.finite import NotFinite
    from p2o_core.sharding.job import UpdateJob

    policy = io.experiment.policy
    job = UpdateJob(
        policy=io.inputs["policy"],
        base=io.inputs["base"],
        optimizer=io.inputs["optimizer"],
        new_policy=io.outputs["policy"],
        new_optimizer=io.outputs["optimizer"],
        checkpoints=io.journal.folder / CHECKPOINTS,
        policy_config=policy,
        config=io.experiment.distill,
        temperature=io.experiment.rollout.temperature,
        seed=io.seed("update"),
        threads=max(1, io.experiment.threads // policy.processes),
    )
    try:
        return (_in_this_process if policy.processes == 1 else _in_processes)(io, job, groups)
    except NotFinite as error:
        raise rejected_update(io, error) from error


def _in_this_process(io: StageIO, job: UpdateJob, groups: Sequence[Group]) -> UpdateResult:
    from p2o_core.optimizer import release_memory
    from p2o_core.sharding.perform import perform

    policy = io.runtime.trainer(job.policy, job.base, job.policy_config)
    io.runtime.forget_policies()
    result = perform(job, policy, groups, io.progress)
    if io.experiment.engine.type in ("embedded", "ray"):  # what a cluster's actors hold is in memory of their own
        io.runtime.policy_changed(policy, job.new_policy, job.policy_config)
    else:  # an engine of its own needs the memory to try the new policy
        del policy
        release_memory()
    return result


def _in_processes(io: StageIO, job: UpdateJob, groups: Sequence[Group]) -> UpdateResult:
    """Nothing of the policy is held in this process meanwhile."""
    from p2o_core.sharding.launch import update_in_processes

    io.runtime.leave_device()
    folder = io.journal.folder / "processes"
    return update_in_processes(job, groups, folder, job.policy_config.processes, io.progress)


def _check_skills(io: StageIO, problems: Mapping[str, Problem], judged: Sequence[Judged]) -> SkillCheck | None:
    """Roll problems that the policy solved before the update out again, and give the configured answer to a loss:
    ``rolled_back`` puts the policy and the optimiser that the iteration started from into the outputs. None: nothing
    was probed.

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
    if not skills.lost(config.skill_margin):
        return SkillCheck(**vars(skills), answer="kept")
    if config.on_lost_skills == "stop":
        raise TrainingStopped(
            f"iteration {io.iteration}, distill: accuracy on {skills.problems} problems solved before the update went "
            f"from {skills.before:.2f} to {skills.after:.2f}, more than health.skill_margin={config.skill_margin}. The "
            "policy of the last iteration is untouched. Mend: lower distill.learning_rate, or health.on_lost_skills: "
            "roll_back or warn."
        )
    if config.on_lost_skills == "warn":
        return SkillCheck(**vars(skills), answer="warned")
    for kept in ("policy", "optimizer"):
        shutil.rmtree(io.outputs[kept])
        shutil.copytree(io.inputs[kept], io.outputs[kept])
    io.runtime.forget_policies()
    return SkillCheck(**vars(skills), answer="rolled_back")


STAGE = Stage(
    name="distill",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "previous"),
        "optimizer": Artifact("optimizer", "previous"),
        "rollouts": Artifact("rollouts.parquet", "current"),
        "verdicts": Artifact("verdicts.parquet", "current"),
        "assignment": Artifact("assignment.parquet", "current"),
        "winners": Artifact("winners.parquet", "current"),
    },
    outputs={
        "templated": "templated.parquet",
        "templated_verdicts": "templated_verdicts.parquet",
        "transfer": "transfer.parquet",
        "policy": "policy",
        "optimizer": "optimizer",
        "update": "update.json",
    },
    params=(
        "seed",
        "threads",
        "policy",
        "engine",
        "rollout.prompt",
        "rollout.samples",
        "rollout.temperature",
        "rollout.max_new_tokens",
        "verify.timeout_s",
        "distill",
        "health",
    ),
)
