"""What a run tells Prefect's automations: events of three kinds, about its experiment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.running.stage import TrainingStopped

LOST_SKILLS = "p2o.lost-skills"
"""Held-out problems that the policy could solve before training fail now."""
NO_SIGNAL = "p2o.no-signal"
"""No group of the iteration had a variance: the policy did not change."""
STOPPED = "p2o.stopped"
"""The run stopped itself: numbers that are not finite, lost skills that it was told to stop at."""


def tell(event: str, experiment: str, message: str, **payload: Any) -> None:
    """Send an event; the flow run is related to it by itself. A server that is away misses it: the log has it too."""
    from prefect.events import emit_event  # the stages' command comes by this package too, and does without Prefect

    resource = {"prefect.resource.id": f"p2o.experiment.{experiment}", "prefect.resource.name": experiment}
    emit_event(event, resource=resource, payload={"message": message, **payload})


@contextmanager
def stops_are_told(experiment: str) -> Iterator[None]:
    """Around the work of a training flow: a run that stops itself says so to the automations."""
    try:
        yield
    except TrainingStopped as error:
        tell(STOPPED, experiment, str(error))
        raise
