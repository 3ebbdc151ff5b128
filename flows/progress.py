"""How far a run is, as an artefact in Prefect's page that moves while a long stage works."""

from __future__ import annotations

import time
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.settings import Settings

EVERY_S = 3.0
"""Seconds between two looks of a person at a page; each costs the run a request, 10 ms."""
AWAY_S = 60.0
"""Seconds without further requests after one that failed: the run does not wait for its page."""
LIMIT_S = 5.0
"""Seconds a request may take."""


def artifact_key(name: str) -> str:
    """A name as Prefect takes it for an artefact's key: small letters, digits and dashes."""
    return name.replace("_", "-").replace(".", "-").lower()


_hasty: list[tuple[Settings, Settings]] = []
"""Prefect's settings and :func:`in_passing`'s copy of them: kept, since copying takes a twentieth of a second."""


def in_passing() -> SettingsContext:
    """A context in which a request to Prefect is tried once, LIMIT_S long at most: training waits for it."""
    now = get_settings_context()
    if not _hasty or _hasty[0][0] is not now.settings:
        hasty = now.settings.copy_with_update({"client.max_retries": 0, "api.request_timeout": LIMIT_S})
        _hasty[:] = [(now.settings, hasty)]
    return SettingsContext(profile=now.profile, settings=_hasty[0][1])


class RunProgress:
    """One artefact a run, made with its first ``begin``: a run with nothing to do has none."""

    def __init__(self, name: str, steps: int) -> None:
        self.key = artifact_key(f"{name}-progress")
        self.steps = steps
        self.done = 0
        self._id: UUID | None = None
        self._next = 0.0

    def begin(self, what: str) -> None:
        """A step of the run begins. In the flow's or a task's own thread, which Prefect knows the run by."""
        self._publish(what, 0.0, first=True)

    def show(self, what: str, share: float) -> None:
        """So much of the present step is done, from 0 to 1."""
        if time.monotonic() >= self._next:
            self._publish(what, share)

    def end(self) -> None:
        """The run is over."""
        if self._id is not None:
            self.done = self.steps
            self._publish("all done", 0.0)

    def _publish(self, what: str, share: float, *, first: bool = False) -> None:
        percent = min(100.0, 100.0 * (self.done + share) / max(1, self.steps))
        now = time.monotonic()
        if first and now < self._next:
            return  # a short step after a short step
        try:
            with in_passing():
                if self._id is not None:
                    update_progress_artifact(self._id, round(percent, 1), what)
                elif first:
                    made = create_progress_artifact(round(percent, 1), self.key, what)
                    assert isinstance(made, UUID), "only asked from async code it is awaited"
                    self._id = made
            self._next = now + EVERY_S
        except (httpx.HTTPError, PrefectException, RuntimeError):
            self._next = now + AWAY_S
