"""distill: roll the hard problems out under their templates, then update the policy at the bare prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from p2o_core.config import PromptStyle
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.schemas import read_problems, read_rows, write_json, write_rows
from p2o_core.types import Assignment, Completion, Judged, Problem
from tasks.guard import check_skills, rejected
from tasks.running.stage import Artifact, Stage, StageIO
from tasks.verify import gold_answers, judge

if TYPE_CHECKING:
    from p2o_core.groups import Group
    from p2o_core.prompts import Chat


def run(io: StageIO) -> None:
    """Write ``templated.parquet`` and its verdicts, ``policy/`` with the optimiser, and ``update.json``."""
    from dataclasses import asdict

    from p2o_core.checkpoints import UpdateCheckpoints
    from p2o_core.numerics import NotFinite
    from p2o_core.optimizer import PolicyOptimizer, release_memory
    from p2o_core.update import update_policy

    experiment = io.experiment
    problems = {problem.id: problem for problem in read_problems(io.inputs["train"])}
    assignments = read_rows(io.inputs["assignment"], Assignment) if experiment.distill.enabled else []
    first = experiment.rollout.samples
    reused = reusable(io.inputs["winners"], assignments, first) if experiment.distill.reuse else []
    taken = {(completion.problem_id, completion.sample) for completion in reused}
    assignments = [a for a in assignments if (a.problem_id, first + a.sample) not in taken]
    templated = [*reused, *_roll_out_templated(io, problems, assignments)]
    judged = judge(io.verifier(), templated, gold_answers(list(problems.values())))
    io.counts["templated"] = write_rows(io.outputs["templated"], templated, Completion)
    write_rows(io.outputs["templated_verdicts"], judged, Judged)

    policy = io.runtime.trainer(io.inputs["policy"], io.inputs["base"], experiment.policy)
    groups = build_groups(
        policy.chat,
        problems,
        [*read_rows(io.inputs["rollouts"], Completion), *templated],
        [*read_rows(io.inputs["verdicts"], Judged), *judged],
        gradient_under_template=experiment.distill.context == "templated",
        hard_groups=experiment.distill.hard_groups,
        style=experiment.rollout.prompt,
    )
    io.runtime.forget_policies()
    optimizer = PolicyOptimizer(policy, experiment.distill)
    optimizer.load(io.inputs["policy"])
    try:
        report = update_policy(
            policy,
            optimizer,
            groups if experiment.distill.enabled else [],
            experiment.distill,
            temperature=experiment.rollout.temperature,
            seed=io.seed("update"),
            checkpoints=UpdateCheckpoints(io.journal.folder / "update", every=experiment.distill.checkpoint_every),
            on_step=io.progress,
        )
    except NotFinite as error:
        raise rejected(io, error) from error
    policy.save(io.outputs["policy"])
    optimizer.save(io.outputs["policy"])
    steps_done = optimizer.steps_done
    if experiment.engine.type == "embedded":
        io.runtime.policy_changed(policy, io.outputs["policy"], experiment.policy)
    else:  # an engine of its own needs the memory to try the new policy
        del policy, optimizer, groups
        release_memory()
    skills = check_skills(io, problems, read_rows(io.inputs["verdicts"], Judged)) if report.steps else None
    taken_back = skills is not None and skills["answer"] == "rolled_back"
    solve_rate = sum(j.reward for j in judged) / len(judged) if judged else 0.0
    tokens = sum(len(c.token_ids) for c in templated if (c.problem_id, c.sample) not in taken)  # paid by the search
    io.counts |= {"tokens": tokens, "steps": report.steps}
    write_json(
        io.outputs["update"],
        asdict(report)
        | ({} if experiment.distill.enabled else {"status": "off"})
        | {
            # a policy that was taken back has the optimiser it started with
            "optimizer_steps": steps_done - (report.steps if taken_back else 0),
            "templated_solve_rate": solve_rate,
            "templated_tokens": tokens,
            "reused": len(reused),
            "entropy": entropy(read_rows(io.inputs["rollouts"], Completion)),
            "skills": skills,
        },
    )


def entropy(rollouts: Sequence[Completion]) -> float:
    """Of the policy that wrote them, nats a token: the mean of -log-prob over its own samples, which is unbiased."""
    logps = [logp for completion in rollouts for logp in completion.logps]
    return -sum(logps) / len(logps)


def reusable(winners: Path, assignments: Sequence[Assignment], first_sample: int) -> list[Completion]:
    """Completions the search sampled from this very policy, numbered as the assignments they stand in for.

    The bias this brings: a template was kept because these very completions scored well, so their solve rate is
    above the template's true one (the winner's curse), and a group's mean reward with it.
    """
    pool: dict[tuple[str, str], list[Completion]] = {}
    for completion in read_rows(winners, Completion):
        pool.setdefault((completion.problem_id, completion.template), []).append(completion)
    return [
        replace(pool[a.problem_id, a.template].pop(0), sample=first_sample + a.sample)
        for a in assignments
        if pool.get((a.problem_id, a.template))
    ]


def _roll_out_templated(
    io: StageIO, problems: dict[str, Problem], assignments: Sequence[Assignment]
) -> list[Completion]:
    """One completion an assignment; samples are numbered behind the bare ones of the same problem."""
    rollout = io.experiment.rollout
    requests = [
        RolloutRequest(
            a.problem_id,
            problems[a.problem_id].question,
            a.template,
            (rollout.samples + a.sample,),
            io.seed("templated"),
            rollout.prompt,
        )
        for a in assignments
    ]
    return io.engine().generate(requests, Sampling(rollout.temperature, rollout.max_new_tokens))


def build_groups(
    chat: Chat,
    problems: dict[str, Problem],
    completions: Sequence[Completion],
    judged: Sequence[Judged],
    *,
    gradient_under_template: bool,
    hard_groups: str = "mixed",
    style: PromptStyle = "plain",
) -> list[Group]:
    """A group a problem, bare and templated completions together: a hard problem's group has variance exactly
    when a template works. The gradient's prompt is the bare one, unless context distillation is off.

    ``hard_groups="templated"`` leaves the bare completions of problems with templated ones out (the paper).
    """
    from p2o_core.groups import Rollout

    groups: dict[str, Group] = {}
    replaced = {c.problem_id for c in completions if c.template.strip()} if hard_groups == "templated" else set()
    for completion, verdict in zip(completions, judged, strict=True):
        if completion.problem_id in replaced and not completion.template.strip():
            continue
        question = problems[completion.problem_id].question
        context = completion.template if gradient_under_template else ""
        groups.setdefault(completion.problem_id, []).append(
            Rollout(
                problem_id=completion.problem_id,
                prompt_ids=chat.encode_prompt(question, context, style),
                completion_ids=completion.token_ids,
                sampling_logps=completion.logps,
                reward=verdict.reward,
                templated=bool(completion.template.strip()),
                sampling_prompt_ids=chat.encode_prompt(question, completion.template, style),
            )
        )
    return list(groups.values())


STAGE = Stage(
    name="distill",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "previous"),
        "rollouts": Artifact("rollouts.parquet", "current"),
        "verdicts": Artifact("verdicts.parquet", "current"),
        "assignment": Artifact("assignment.parquet", "current"),
        "winners": Artifact("winners.parquet", "current"),
    },
    outputs={
        "templated": "templated.parquet",
        "templated_verdicts": "templated_verdicts.parquet",
        "policy": "policy",
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
