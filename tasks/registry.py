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


def plan(iterations: int) -> list[tuple[Stage, int]]:
    """Every (stage, iteration) of an experiment, in order; evaluation of iteration 0 is the baseline."""
    steps: list[tuple[Stage, int]] = [(prepare.STAGE, 0), (init.STAGE, 0), (evaluate.STAGE, 0)]
    steps += [(stage, iteration) for iteration in range(1, iterations + 1) for stage in ITERATION]
    return [*steps, (summary.STAGE, 0)]
