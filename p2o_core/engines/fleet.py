"""One call's requests over all servers.

One queue, ``concurrency`` of it in flight a server, so that a fast server takes more. A request that fails goes back to
the queue and to whichever server is well; a server that failed gets nothing until its health check and its adapter are
right again. Every request is answered exactly once, or :class:`EngineUnavailable` is raised.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from p2o_core.config import ServerEngineConfig
from p2o_core.engines.connection import AttemptFailed, EngineUnavailable, NoNumbers, Server, api_key

LONGEST_PAUSE_S = 5.0
Reply = TypeVar("Reply")


class RowNotFinite(Exception):
    """The answer to the request of that ``index`` cannot be said in numbers."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass
class ServerStats:
    """Counts of one ``generate``: completions by server, and failed attempts by kind (``connection``, ``timeout``,
    ``http_500`` …, ``junk``). They differ from run to run, so no artefact holds them."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


class Fleet(Generic[Reply]):
    """``count`` requests, of which ``ask`` sends the one of a number to a server. ``check`` raises what ``ask`` does
    where a server that is new, or comes back, must not be asked; ``on_rows`` hears of each answer."""

    def __init__(
        self,
        config: ServerEngineConfig,
        count: int,
        ask: Callable[[Server, int], Awaitable[Reply]],
        *,
        check: Callable[[Server], Awaitable[None]],
        on_rows: Callable[[int], None],
    ) -> None:
        self.config = config
        self.count = count
        self.ask = ask
        self.check = check
        self.on_rows = on_rows
        self.stats = ServerStats()
        self.servers: list[Server] = []
        self.answers: dict[int, Reply] = {}
        self.attempts: Counter[int] = Counter()
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.finished = asyncio.Event()
        self.last_well = time.monotonic()
        self.loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Cancel the requests in flight. Another thread may call this."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.finished.set)

    async def run(self) -> list[Reply]:
        """Every answer, in the order of the requests.

        Raises:
            EngineUnavailable: no server was well for ``patience_s``, or a request failed more often than ``retries``.
            RowNotFinite: an answer cannot be said in numbers.
        """
        self.loop = asyncio.get_running_loop()
        for index in range(self.count):
            self.queue.put_nowait(index)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.config.concurrency)
        key = api_key(self.config)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(
            timeout=self.config.timeout_s, limits=limits, headers=headers, trust_env=False
        ) as client:
            self.servers = [Server(url, self.config, client) for url in self.config.urls]
            workers = [
                asyncio.create_task(self._work(server))
                for server in self.servers
                for _ in range(min(self.config.concurrency, self.count))
            ]
            finished = asyncio.create_task(self.finished.wait())
            done, _ = await asyncio.wait([finished, *workers], return_when=asyncio.FIRST_COMPLETED)
            for task in [finished, *workers]:
                task.cancel()
            await asyncio.gather(finished, *workers, return_exceptions=True)
            for task in done - {finished}:
                task.result()  # a worker only ever ends by an error
        return [self.answers[index] for index in range(self.count)]

    async def _work(self, server: Server) -> None:
        while True:
            await self._until_well(server)
            index = await self.queue.get()
            try:
                self.answers[index] = await self.ask(server, index)
            except NoNumbers as error:
                raise RowNotFinite(index) from error
            except AttemptFailed as failure:
                self._put_back(index, server, failure)
                await asyncio.sleep(_pause(self.attempts[index]))
                continue
            self.last_well = time.monotonic()
            self.stats.answered[server.url] += 1
            self.on_rows(1)
            if len(self.answers) == self.count:
                self.finished.set()

    def _put_back(self, index: int, server: Server, failure: AttemptFailed) -> None:
        self.stats.failed[failure.kind] += 1
        server.last_error = str(failure)
        server.well = server.well and not failure.unwell
        self.attempts[index] += 1
        if self.attempts[index] > self.config.retries:
            raise EngineUnavailable(
                f"a completion failed {self.attempts[index]} times, last on {server.url}: {failure}"
            )
        self.queue.put_nowait(index)

    async def _until_well(self, server: Server) -> None:
        """Wait until the server passes :meth:`Server.check`. One worker checks, the others wait for it."""
        async with server.lock:
            tries = 0
            while not server.well:
                tries += 1
                try:
                    await self.check(server)
                except NoNumbers as error:
                    raise RowNotFinite(0) from error
                except (httpx.HTTPError, AttemptFailed) as error:
                    server.last_error = f"{type(error).__name__}: {error}".removeprefix("AttemptFailed: ")
                    self._check_patience()
                    await asyncio.sleep(_pause(tries))
                else:
                    server.well = True
                    self.last_well = time.monotonic()

    def _check_patience(self) -> None:
        waited = time.monotonic() - self.last_well
        if waited > self.config.patience_s and not any(server.well for server in self.servers):
            said = "; ".join(f"{server.url}: {server.last_error}" for server in self.servers)
            mend = "start them with `p2o serve`, or correct engine.urls"
            raise EngineUnavailable(f"no server was well for {waited:.0f} s ({said}). Mend: {mend}.")


def _pause(tries: int) -> float:
    """Return the seconds before the next attempt. They double, with jitter, so that retries do not flood a server that
    comes back."""
    return min(LONGEST_PAUSE_S, 0.1 * 2**tries) * random.uniform(0.5, 1.0)
