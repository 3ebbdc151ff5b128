"""The one loop over a plan: `p2o run`, the arms of `p2o compare`, `p2o evaluate` and the dry run go through it.

Whether a stage is done has one answer, its manifest (:func:`tasks.running.runner.is_fresh`). A ledger beside the
manifests may know it sooner, and is told of what was made: DVC's, for an experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tasks.parameters.experiment import Experiment
from tasks.running.layout import Layout
from tasks.running.runner import StageRun, is_fresh, run_stage
from tasks.running.runtime import Runtime
from tasks.running.stage import Stage

RunStage = Callable[[Stage, Experiment, Layout, int, Runtime], StageRun]


class Outcome(StrEnum):
    """How a step of a plan came to be done."""

    KNOWN = "known"
    """The ledger has it as it lies there."""
    FINISHED = "finished"
    """Its manifest says so; the ledger had not heard of it."""
    RESTORED = "restored"
    """The ledger brought it back from an earlier computation."""
    MADE = "made"


@dataclass(frozen=True)
class Step:
    """A stage of an iteration that is done; ``took`` is None unless it was made now."""

    stage: Stage
    iteration: int
    outcome: Outcome
    took: StageRun | None = None


class Ledger:
    """Who knows besides the manifests what is done: nobody. Subclasses keep a record of their own."""

    def knows(self, stage: Stage, iteration: int) -> bool:
        """The outputs that lie there are those on record, and nothing that they depend on has changed."""
        return False

    def restore(self, stage: Stage, iteration: int) -> bool:
        """Put outputs in place that were computed from the same inputs before. Returns whether there were any."""
        return False

    def record(self, stage: Stage, iteration: int) -> None:
        """The stage's outputs lie there, finished."""


def run_plan(
    steps: Iterable[tuple[Stage, int]],
    experiment: Experiment,
    layout: Layout,
    runtime: Runtime,
    *,
    ledger: Ledger | None = None,
    run: RunStage = run_stage,
) -> Iterator[Step]:
    """Have every (stage, iteration) done, in order, and yield it then. A caller that stops asking ends the plan there.

    Raises:
        Exception: whatever a stage raises.
    """
    ledger = ledger or Ledger()
    for stage, iteration in steps:
        took = None
        if ledger.knows(stage, iteration):
            outcome = Outcome.KNOWN
        elif is_fresh(stage, experiment, layout, iteration):
            outcome = Outcome.FINISHED
            ledger.record(stage, iteration)
        elif ledger.restore(stage, iteration) and is_fresh(stage, experiment, layout, iteration):
            outcome = Outcome.RESTORED
        else:
            outcome, took = Outcome.MADE, run(stage, experiment, layout, iteration, runtime)
            ledger.record(stage, iteration)
        yield Step(stage, iteration, outcome, took)
