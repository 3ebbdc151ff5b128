"""A policy that gives no numbers any more, or an engine that serves another one, ends the run: the rows are kept, the
error is typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from p2o_core.engines.base import PolicyNotFinite
from p2o_core.schemas import write_rows
from p2o_core.types import Completion
from p2o_core.witness import OtherPolicyServed
from tasks.running.stage import StageIO, TrainingStopped

if TYPE_CHECKING:
    from p2o_core.finite import NotFinite


@contextmanager
def typed_stops(path: Path, where: str) -> Iterator[None]:
    """Around whatever samples. ``path``: the parquet file for the completions; ``where``: iteration and stage.

    Raises:
        TrainingStopped: an engine raised PolicyNotFinite or OtherPolicyServed.
    """
    try:
        yield
    except OtherPolicyServed as error:
        raise TrainingStopped(f"{where}: {error}") from error
    except PolicyNotFinite as error:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, error.completions, Completion)
        raise TrainingStopped(
            f"{where}: {error}: the policy's weights or logits are no numbers. The rows are in {path}. Mend: go back "
            "to the last iteration whose policy gives answers (delete those after it) and lower "
            "distill.learning_rate; should the base policy be meant, `p2o doctor` looks at its weights."
        ) from error


def rejected_update(io: StageIO, error: NotFinite) -> TrainingStopped:
    """Save the rows an update stopped at; returns the error to raise."""
    from p2o_core.groups import TrainingSample

    path = io.layout.rejected(io.iteration)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, error.samples, TrainingSample)
    return TrainingStopped(
        f"iteration {io.iteration}, distill: {error}. The rows are in {path}. Mend: look at their log-probs, or lower "
        "distill.learning_rate, with which every update is made again."
    )
