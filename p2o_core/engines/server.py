"""The ``server`` engine: completions from one or many vLLM servers behind OpenAI's protocol."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
from p2o_core.engines.connection import Answer, ServedPolicy, Server
from p2o_core.engines.fleet import Fleet, Reply, RowNotFinite, ServerStats
from p2o_core.engines.serving import BASE_MODEL
from p2o_core.policy import ADAPTER_CONFIG
from p2o_core.prompts import Chat
from p2o_core.types import Completion
from p2o_core.witness import check_served, read_witness


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
        except RowNotFinite as error:  # its row has no answer to show
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
        except RowNotFinite as error:
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
        fleet = Fleet(
            self.config, len(bodies), ask, check=lambda server: self._check(server, bodies[0]), on_rows=on_rows
        )
        self.stats = fleet.stats
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may run an event loop of its own
            future = thread.submit(asyncio.run, fleet.run())
            try:
                return future.result()
            except BaseException:  # Ctrl-C does not wait for a thousand completions
                fleet.stop()
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

    async def _check(self, server: Server, example: dict[str, Any]) -> None:
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


def _served(folder: Path, base: Path) -> ServedPolicy:
    """The policy with its name. The same adapter thus has the same name on every server, and no other adapter has it.
    The path counts because a server reads an adapter again from where it first loaded it."""
    adapter = (folder / ADAPTER_CONFIG).exists()
    whole = hashlib.sha256(str(folder).encode())
    whole.update(digest(folder).encode())
    return ServedPolicy(folder, f"policy-{whole.hexdigest()[:16]}", adapter, base=folder == base)
