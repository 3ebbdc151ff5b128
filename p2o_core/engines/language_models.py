"""Language models that reflect: the reference policy through the engine, or a teacher behind an endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from p2o_core.config import TeacherReflectorConfig
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.engines.connection import may_pass
from p2o_core.seeding import derive_seed

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError  # half a second, for those without a teacher too


ENDPOINT_DOWN = "endpoint_down"
"""Kind of failure of a prompt that was given up since the endpoint had been away for ``patience_s``."""
AWAY = ("connection", "http_502", "http_503", "http_504")


LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""Hosts that are asked directly, whatever proxy the environment names: it cannot reach this machine's own."""


@dataclass(frozen=True)
class Reply:
    """The answer to one prompt. ``failures`` holds the kind of each failed attempt; ``text`` is None when all attempts
    failed."""

    text: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    failures: tuple[str, ...] = ()


class LanguageModel(Protocol):
    """Answers the prompts of one call concurrently. It never raises for a prompt that failed; that reply's ``text`` is
    None. ``calls`` counts the calls, and seeds derive from it: a wrapper that answers a call itself must count it."""

    calls: int

    def complete(self, prompts: Sequence[str]) -> list[Reply]: ...


class EngineModel:
    """The reference policy as its own reflector. A prompt is a rollout request like any other."""

    def __init__(self, engine: RolloutEngine, *, temperature: float, max_new_tokens: int, seed: int) -> None:
        self.engine = engine
        self.sampling = Sampling(temperature, max_new_tokens)
        self.seed = seed
        self.calls = 0

    def complete(self, prompts: Sequence[str]) -> list[Reply]:
        self.calls += 1
        stream = derive_seed(self.seed, self.calls)
        requests = [RolloutRequest(str(index), prompt, "", (0,), stream) for index, prompt in enumerate(prompts)]
        completions = self.engine.generate(requests, self.sampling)
        return [Reply(c.text, c.prompt_tokens, len(c.token_ids)) for c in completions]


class TeacherModel:
    """Any OpenAI-compatible chat endpoint. It retries failures that may pass (408, 409, 425, 429, 5xx, connection,
    time-out, junk instead of an answer) with exponential back-off and jitter, and counts each failure by kind.

    While the endpoint is away (no connection, 502 to 504), attempts go on beyond ``retries``. An endpoint that is away
    or only times out, and answers nothing for ``patience_s``, is down: this model sends no further prompt, and each
    reply has the failure ``endpoint_down``."""

    def __init__(self, config: TeacherReflectorConfig, api_key: str, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.calls = 0
        self.down = False
        self._last_answer = 0.0
        self._api_key = api_key

    def complete(self, prompts: Sequence[str]) -> list[Reply]:
        self.calls += 1
        self._last_answer = time.monotonic()  # nothing was asked in between
        return asyncio.run(self._complete_all(prompts))

    async def _complete_all(self, prompts: Sequence[str]) -> list[Reply]:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        places = asyncio.Semaphore(self.config.concurrency)
        async with AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=self._api_key or "none",
            timeout=self.config.timeout_s,
            max_retries=0,  # counted here
            http_client=DefaultAsyncHttpxClient(mounts=dict.fromkeys(LOOPBACK)),
        ) as client:

            async def one(index: int, prompt: str) -> Reply:
                async with places:
                    return await self._complete(client, prompt, derive_seed(self.seed, self.calls, index) % 2**31)

            return await asyncio.gather(*(one(index, prompt) for index, prompt in enumerate(prompts)))

    async def _complete(self, client: AsyncOpenAI, prompt: str, seed: int) -> Reply:
        from openai import OpenAIError
        from tenacity import AsyncRetrying, RetryError, retry_if_exception, wait_exponential_jitter

        if self.down:
            return Reply(None, failures=(ENDPOINT_DOWN,))
        failures: list[str] = []
        retrying = AsyncRetrying(
            stop=lambda _: self._given_up(failures),
            wait=wait_exponential_jitter(initial=self.config.backoff_s, max=min(60.0, self.config.patience_s / 4)),
            retry=retry_if_exception(lambda error: isinstance(error, _Failure) and error.may_pass),
        )

        async def attempt() -> Reply:
            try:
                answer = await client.chat.completions.create(
                    model=self.config.model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=self.config.temperature,
                    max_tokens=self.config.max_new_tokens,
                    seed=seed,
                )
                text = answer.choices[0].message.content
                if not isinstance(text, str):
                    raise TypeError("no text in the answer")
                usage = answer.usage  # any field of it may be missing
                read = int(usage.prompt_tokens or 0) if usage else 0
                written = int(usage.completion_tokens or 0) if usage else 0
            except OpenAIError as error:
                failures.append(_kind(error))
                if failures[-1] not in (*AWAY, "timeout"):
                    self._last_answer = time.monotonic()
                raise _Failure(may_pass=_may_pass(error)) from None  # the error's text may quote headers
            except (AttributeError, IndexError, TypeError, ValueError, KeyError):
                failures.append("junk")
                self._last_answer = time.monotonic()
                raise _Failure(may_pass=True) from None
            self._last_answer = time.monotonic()
            return Reply(text, read, written)

        try:
            reply: Reply = await retrying(attempt)
        except (RetryError, _Failure):
            return Reply(None, failures=(*failures, *([ENDPOINT_DOWN] if self.down else ())))
        return Reply(reply.text, reply.input_tokens, reply.output_tokens, tuple(failures))

    def _given_up(self, failures: Sequence[str]) -> bool:
        """Return whether to give up a prompt after these failures."""
        if failures[-1] in (*AWAY, "timeout") and time.monotonic() - self._last_answer > self.config.patience_s:
            self.down = True
        return self.down or sum(kind not in AWAY for kind in failures) > self.config.retries


class _Failure(Exception):
    def __init__(self, *, may_pass: bool) -> None:
        super().__init__("the endpoint failed")
        self.may_pass = may_pass


def _kind(error: OpenAIError) -> str:
    """Return the error's kind: ``timeout``, ``connection``, ``http_500`` … or ``junk``."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return "timeout"
    if isinstance(error, APIStatusError):
        return f"http_{error.status_code}"
    return "connection" if isinstance(error, APIConnectionError) else "junk"


def _may_pass(error: OpenAIError) -> bool:
    from openai import APIStatusError

    return may_pass(error.status_code) if isinstance(error, APIStatusError) else True
