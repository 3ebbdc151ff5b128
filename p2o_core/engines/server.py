"""The ``server`` engine: completions from one or many vLLM servers behind OpenAI's protocol.

One queue of requests, ``concurrency`` of them in flight a server, so that a fast server takes more. A request that
fails goes back to the queue and to whichever server is well; a server that failed gets nothing until its health
check and its adapter are right again. Every request is answered exactly once, or :class:`EngineUnavailable` is raised.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx

from p2o_core.config import ServerEngineConfig
from p2o_core.digests import digest
from p2o_core.engines.base import (
    LogprobRequest,
    PolicyNotFinite,
    RolloutRequest,
    Sampling,
    check_sampled,
    check_scored,
    point_mass,
)
from p2o_core.engines.connection import (
    Answer,
    AttemptFailed,
    EngineUnavailable,
    NoNumbers,
    ServedPolicy,
    Server,
    api_key,
)
from p2o_core.engines.serving import BASE_MODEL
from p2o_core.policy import ADAPTER_CONFIG
from p2o_core.prompts import Chat
from p2o_core.types import Completion
from p2o_core.witness import check_served, read_witness

LONGEST_PAUSE_S = 5.0
Reply = TypeVar("Reply")


class _RowNotFinite(Exception):
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


class ServerEngine:
    """See :class:`p2o_core.engines.base.RolloutEngine`. ``policy`` is a folder with an adapter or full weights that the
    servers can read too, or the base itself. ``stats`` are those of the last call."""

    def __init__(
        self, base: Path, policy: Path, config: ServerEngineConfig, *, on_rows: Callable[[int], None] | None = None
    ) -> None:
        self.config = config
        self.chat = Chat.load(base)
        self.on_rows = on_rows or (lambda rows: None)
        self.stats = ServerStats()
        self.witness = read_witness(policy)
        self.policy = _served(policy.resolve(), base.resolve())
        self.model = self.policy.name if self.policy.adapter else BASE_MODEL

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """See :class:`p2o_core.engines.base.RolloutEngine`.

        Raises:
            EngineUnavailable: no server was well for ``patience_s``, a request failed more often than ``retries``,
                or a server refused one for good.
            OtherPolicyServed: a server's log-probs are not this policy's.
        """
        rows = [(request, sample) for request in requests for sample in request.samples]
        bodies = [self._sampling_body(*row, sampling) for row in rows]
        try:
            answers = self._ask_all(bodies, lambda server, index: server.complete(bodies[index]), self.on_rows)
        except _RowNotFinite as error:  # its row has no answer to show
            nothing = Answer((), (), truncated=True)
            raise PolicyNotFinite([self._completion(*rows[error.index], nothing, sampling)]) from error
        return check_sampled(
            [self._completion(*row, answer, sampling) for row, answer in zip(rows, answers, strict=True)]
        )

    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """See :class:`p2o_core.engines.base.RolloutEngine`, and :meth:`generate` for further errors. Prompt and
        completion go in as one prompt; the one token that vLLM insists on writing is not read."""
        bodies = [self._scoring_body(request) for request in requests]
        try:
            scored = self._ask_all(
                bodies, lambda server, index: server.score(bodies[index], requests[index].token_ids), lambda rows: None
            )
        except _RowNotFinite as error:
            broken = requests[error.index]
            scored = [(math.nan,) if request is broken else () for request in requests]
        return check_scored(requests, scored, self.chat.decode)

    def _ask_all(
        self,
        bodies: Sequence[dict[str, Any]],
        ask: Callable[[Server, int], Awaitable[Reply]],
        on_rows: Callable[[int], None],
    ) -> list[Reply]:
        """``ask`` sends the request of that number to a server."""
        if not bodies:
            return []
        self.stats = ServerStats()
        batch = _Batch(self, bodies[0], len(bodies), ask, on_rows)
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may run an event loop of its own
            future = thread.submit(asyncio.run, batch.run())
            try:
                return future.result()
            except BaseException:  # Ctrl-C does not wait for a thousand completions
                batch.stop()
                raise

    def _sampling_body(self, request: RolloutRequest, sample: int, sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": list(self.chat.encode_prompt(request.question, request.template, request.style)),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": request.seed(sample),
            "stop_token_ids": list(self.chat.stop_ids),
            "logprobs": 0,
            "return_token_ids": True,
        }

    def _scoring_body(self, request: LogprobRequest) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": [*request.prompt(self.chat), *request.token_ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }

    async def check(self, server: Server, example: dict[str, Any]) -> None:
        """Check a server that is new, or comes back: its health, its options, and whether it serves this policy.

        Raises:
            OtherPolicyServed: it serves another one.
            Exception: as :meth:`p2o_core.engines.connection.Server.check`.
        """
        await server.check(example, self.policy)
        if self.witness is not None:
            request = self.witness.request
            served = await server.score(self._scoring_body(request), request.token_ids)
            check_served(served, self.witness, server.url)

    def _completion(self, request: RolloutRequest, sample: int, answer: Answer, sampling: Sampling) -> Completion:
        return Completion(
            problem_id=request.problem_id,
            sample=sample,
            template=request.template,
            text=self.chat.decode(answer.token_ids),
            token_ids=answer.token_ids,
            logps=answer.logps if sampling.temperature else point_mass(answer.logps),
            truncated=answer.truncated,
            prompt_tokens=len(self.chat.encode_prompt(request.question, request.template, request.style)),
        )


class _Batch(Generic[Reply]):
    """One call of the engine: its queue, its servers and its answers. ``example`` is any of its ``count`` requests."""

    def __init__(
        self,
        engine: ServerEngine,
        example: dict[str, Any],
        count: int,
        ask: Callable[[Server, int], Awaitable[Reply]],
        on_rows: Callable[[int], None],
    ) -> None:
        self.engine = engine
        self.config = engine.config
        self.example = example
        self.count = count
        self.ask = ask
        self.on_rows = on_rows
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
                raise _RowNotFinite(index) from error
            except AttemptFailed as failure:
                self._put_back(index, server, failure)
                await asyncio.sleep(_pause(self.attempts[index]))
                continue
            self.last_well = time.monotonic()
            self.engine.stats.answered[server.url] += 1
            self.on_rows(1)
            if len(self.answers) == self.count:
                self.finished.set()

    def _put_back(self, index: int, server: Server, failure: AttemptFailed) -> None:
        self.engine.stats.failed[failure.kind] += 1
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
                    await self.engine.check(server, self.example)
                except NoNumbers as error:
                    raise _RowNotFinite(0) from error
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


def _served(folder: Path, base: Path) -> ServedPolicy:
    """The policy with its name. The same adapter thus has the same name on every server, and no other adapter has it.
    The path counts because a server reads an adapter again from where it first loaded it."""
    adapter = (folder / ADAPTER_CONFIG).exists()
    whole = hashlib.sha256(str(folder).encode())
    whole.update(digest(folder).encode())
    return ServedPolicy(folder, f"policy-{whole.hexdigest()[:16]}", adapter, base=folder == base)
