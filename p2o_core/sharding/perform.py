"""The work of a job: in one process, or in each of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2o_core.checkpoints import UpdateCheckpoints
from p2o_core.groups import Group
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.sharding.job import UpdateJob, UpdateResult
from p2o_core.update import update_policy
from p2o_core.witness import Witnessing


def perform(
    job: UpdateJob,
    policy: Policy,
    groups: Sequence[Group],
    on_step: Callable[[int, int], None] = lambda step, planned: None,
) -> UpdateResult:
    """Train ``policy``, which was loaded from the job's folder, and save it with its optimiser and its witness. A job
    that was killed goes on.

    Raises:
        NotFinite: see :func:`p2o_core.update.update_policy`.
    """
    optimizer = PolicyOptimizer(policy, job.config)
    optimizer.load(job.optimizer)
    witnessing = Witnessing(policy, groups, job.config)
    report, log_ratios = update_policy(
        policy,
        optimizer,
        groups,
        job.config,
        temperature=job.temperature,
        seed=job.seed,
        checkpoints=UpdateCheckpoints(job.checkpoints, every=job.config.checkpoint_every, team=policy.team),
        on_step=on_step,
    )
    policy.save(job.new_policy)
    witnessing.save(job.new_policy, updated=report.steps > 0, previous=job.policy)
    optimizer.save(job.new_optimizer)
    measured = [(problem, sample, ratio) for (problem, sample), ratio in log_ratios.items()]
    return UpdateResult(report, measured, optimizer.steps_done)
