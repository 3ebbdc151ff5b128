"""All stages, in order."""

from __future__ import annotations

from tasks import distill, evaluate, evolve, init, mine, prepare, rollout, summary, verify
from tasks.running.stage import Stage

ITERATION: tuple[Stage, ...] = (
    rollout.STAGE,
    verify.STAGE,
    mine.STAGE,
    evolve.STAGE,
    distill.STAGE,
    evaluate.STAGE,
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in (prepare.STAGE, init.STAGE, *ITERATION, summary.STAGE)}


def closing_stages(iteration: int) -> tuple[Stage, ...]:
    """``evaluate`` and what comes after it in an iteration; iteration 0, the baseline, has its evaluation alone."""
    return ITERATION[ITERATION.index(evaluate.STAGE) :] if iteration else (evaluate.STAGE,)


def ends_iteration(stage: Stage, iteration: int) -> bool:
    """The stage is the iteration's last: its row is whole, and may be logged, shown and counted."""
    return stage is closing_stages(iteration)[-1]


def plan(iterations: int) -> list[tuple[Stage, int]]:
    """Every (stage, iteration) of an experiment, in order; evaluation of iteration 0 is the baseline."""
    steps: list[tuple[Stage, int]] = [(prepare.STAGE, 0), (init.STAGE, 0), (evaluate.STAGE, 0)]
    steps += [(stage, iteration) for iteration in range(1, iterations + 1) for stage in ITERATION]
    return [*steps, (summary.STAGE, 0)]
