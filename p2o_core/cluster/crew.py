"""Actors of one kind, and the parts of a call spread over them.

An actor has ``in_flight`` parts at most; the next one goes to whoever has fewest. An actor that dies is restarted by
Ray (``max_restarts``) and gets no work before it answers again; its parts go back to the others at once. Each part is
answered exactly once: it is handed out again only when its last attempt has ended in an error.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2o_core.cluster.workers import Failure
from p2o_core.engines.connection import EngineUnavailable

log = logging.getLogger(__name__)

Call = tuple[Any, ...]
"""A method's name and its arguments."""


@dataclass
class CrewStats:
    """Counts of one call: parts answered by actor, and attempts lost to actors that died. They differ from run to run,
    so no artefact holds them."""

    answered: Counter[int] = field(default_factory=Counter)
    lost: int = 0


class _Member:
    """One actor. ``starting`` is the reference of its next sign of life; None: it is well. ``last_words`` are why it is
    gone for good."""

    def __init__(self, actor: Any, number: int) -> None:
        self.actor = actor
        self.number = number
        self.last_words = ""
        self.busy = 0
        self.starting: Any = None
        self.wait_for_life()

    @property
    def well(self) -> bool:
        return self.starting is None and not self.last_words

    def wait_for_life(self) -> None:
        if self.starting is None:  # -1: asked again until it is restarted, or dead for good
            self.starting = self.actor.ready.options(max_task_retries=-1).remote()


class Crew:
    """``count`` actors of the class ``worker`` with the same arguments. ``options`` are Ray's (``num_cpus`` …);
    ``restarts`` is how often an actor is started again, and a part tried again. Nothing waits for the actors to start
    but the first call."""

    def __init__(
        self,
        worker: type,
        arguments: Sequence[Any],
        *,
        count: int,
        in_flight: int,
        restarts: int,
        patience_s: float,
        expected: Any = None,
        **options: Any,
    ) -> None:
        import ray

        remote: Any = ray.remote(worker)
        self.members = [
            _Member(remote.options(max_restarts=restarts, **options).remote(*arguments), number)
            for number in range(count)
        ]
        self.in_flight = in_flight
        self.restarts = restarts
        self.patience_s = patience_s
        self.stats = CrewStats()
        self._expected = expected

    def work(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        """Yield each call's number and answer, as they come.

        Raises:
            EngineUnavailable: no actor is left, none started for ``patience_s``, or a part failed more often than
                ``restarts``.
            what a :class:`Failure` says: of the first part, in the calls' order, that failed; as one process would.
        """
        import ray

        self.stats = CrewStats()
        waiting, flying, attempts = list(range(len(calls))), dict[Any, tuple[int, _Member]](), Counter[int]()
        failures: dict[int, Failure] = {}
        for member in self.members:
            member.busy = 0
        while True:
            first_failed = min(failures, default=len(calls))
            while waiting and waiting[0] < first_failed and (free := self._free()) is not None:
                number = heapq.heappop(waiting)
                name, *arguments = calls[number]
                flying[getattr(free.actor, name).remote(*arguments)] = (number, free)
                free.busy += 1
            if min([*waiting[:1], *(number for number, _ in flying.values())], default=len(calls)) >= first_failed:
                break
            for reference in self._next(flying):
                number, member = flying.pop(reference)
                member.busy -= 1
                try:
                    answer = ray.get(reference)
                except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                    self.stats.lost += 1
                    attempts[number] += 1
                    if attempts[number] > self.restarts + 1:
                        raise EngineUnavailable(
                            f"a part of the work failed {attempts[number]} times, each time with its actor: {error}"
                        ) from error
                    heapq.heappush(waiting, number)
                    if member.well:
                        log.warning("actor %d died; it is restarted, its parts are done again", member.number)
                    member.wait_for_life()
                    continue
                if isinstance(answer, Failure):
                    failures[number] = answer
                    continue
                self.stats.answered[member.number] += 1
                yield number, answer
        if failures:
            raise failures[min(failures)].error()

    def close(self) -> None:
        """End the actors, after a moment to clear up."""
        import ray

        farewells = [member.actor.close.remote() for member in self.members if member.well]
        if farewells:
            ray.wait(farewells, num_returns=len(farewells), timeout=5.0)
        for member in self.members:
            ray.kill(member.actor)

    def _free(self) -> _Member | None:
        free = [member for member in self.members if member.well and member.busy < self.in_flight]
        return min(free, key=lambda member: member.busy, default=None)

    def _next(self, flying: dict[Any, tuple[int, _Member]]) -> list[Any]:
        """References of parts that ended, none if only an actor gave a sign of life."""
        import ray

        signs = {member.starting: member for member in self.members if member.starting is not None}
        if not signs and not flying:
            raise EngineUnavailable(
                f"all {len(self.members)} actors died more often than engine.restarts={self.restarts} allows. The "
                f"last: {self.members[-1].last_words}"
            )
        patience = None if any(member.well for member in self.members) else self.patience_s
        ended, _ = ray.wait([*flying, *signs], num_returns=1, timeout=patience)
        if not ended and not flying:
            raise EngineUnavailable(
                f"no actor started for {self.patience_s:.0f} s. Mend: engine.gpus_per_actor and threads as the "
                "cluster's nodes have them (`ray status`), or raise engine.patience_s."
            )
        for reference in set(ended) & set(signs):
            self._greet(signs[reference])
        return [reference for reference in ended if reference in flying]

    def _greet(self, member: _Member) -> None:
        """An actor has started, or is gone for good."""
        import ray

        reference, member.starting = member.starting, None
        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            member.last_words = " ".join(str(error).split())[:500]
            return
        if self._expected is not None and found != self._expected:
            raise EngineUnavailable(
                f"an actor has other versions than this process: {found} instead of {self._expected}. The same "
                "completions come from the same versions only. Mend: one environment on all nodes."
            )
