"""One vLLM server behind OpenAI's protocol: checks its health and adapter, sends requests, reads answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from p2o_core.config import ServerEngineConfig
from p2o_core.engines.serving import SWAP

NO_NUMBERS = "Out of range float values are not JSON compliant"
"""What Python's JSON says of NaN and infinity."""
PROBED = 5
"""Likeliest tokens asked for when two are needed: tokens with the same text, parts of a character, count once."""


def may_pass(status: int) -> bool:
    """Return whether an HTTP status says "later" rather than "never": 408, 409, 425, 429, and all from 500 on. Rollout
    servers and teachers share this rule."""
    return status in (408, 409, 425, 429) or status >= 500


class EngineUnavailable(RuntimeError):
    """No server could answer. The message names the servers and their last errors."""


class NoNumbers(Exception):
    """A log-prob of the answer is NaN or infinite. vLLM cannot write that as JSON and answers 400. The policy is the
    cause, so every server would answer the same."""


class AttemptFailed(Exception):
    """An attempt failed and may be made again. ``kind`` is ``connection``, ``timeout``, ``http_500`` … or ``junk``. If
    ``unwell``, the engine checks the server's health before the next attempt."""

    def __init__(self, kind: str, detail: str, *, unwell: bool) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.unwell = unwell


@dataclass(frozen=True)
class Answer:
    """One completion: token ids, and as many log-probs under the distribution sampled from. ``truncated`` means that it
    reached ``max_tokens``."""

    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True)
class ServedPolicy:
    """What the servers are to sample from: an ``adapter``, or all weights, in a ``folder`` that they can read too. No
    other policy has its ``name``. The ``base`` is what they were started with."""

    folder: Path
    name: str
    adapter: bool
    base: bool


class Server:
    """A server and its state. ``well`` is false until :meth:`check` passes, and again after a failure that puts the
    server in doubt."""

    def __init__(self, url: str, config: ServerEngineConfig, client: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.config = config
        self.client = client
        self.well = False
        self.last_error = "not asked yet"
        self.lock = asyncio.Lock()

    async def check(self, body: dict[str, Any], policy: ServedPolicy) -> None:
        """Check the server's health, have it load the policy, and check which log-probs it returns. ``body`` is any
        request.

        Raises:
            httpx.HTTPError, AttemptFailed: the server is not well now, but may be later.
            EngineUnavailable: the server was started with the wrong options.
        """
        (await self.client.get(f"{self.url}/health", timeout=10.0)).raise_for_status()
        await (self._load_adapter if policy.adapter else self._read_weights)(policy)
        await self._check_logprobs(body)

    async def complete(self, body: dict[str, Any]) -> Answer:
        """Send a request that asks for token ids and log-probs, and read the answer.

        Raises:
            AttemptFailed: the caller may try again, here or elsewhere.
            EngineUnavailable: the server refused the request for good.
            NoNumbers: the policy gives NaN.
        """
        choice = await self._post(body)
        try:
            tokens = tuple(int(token) for token in choice["token_ids"])
            logps = tuple(float(logp) for logp in choice["logprobs"]["token_logprobs"])
            truncated = choice["finish_reason"] == "length"
        except (KeyError, TypeError, ValueError) as error:
            raise AttemptFailed("junk", f"{type(error).__name__} in the answer", unwell=False) from error
        if not tokens or len(tokens) != len(logps):
            raise AttemptFailed("junk", f"{len(tokens)} token ids and {len(logps)} log-probs", unwell=False)
        return Answer(tokens, logps, truncated)

    async def score(self, body: dict[str, Any], token_ids: Sequence[int]) -> tuple[float, ...]:
        """Send a request that asks for its prompt's log-probs, and return those of the prompt's end, ``token_ids``.

        Raises: as :meth:`complete`.
        """
        choice = await self._post(body)
        try:
            steps = choice["prompt_logprobs"][-len(token_ids) :]
            return tuple(float(step[str(token)]["logprob"]) for step, token in zip(steps, token_ids, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise AttemptFailed("junk", f"{type(error).__name__} in the prompt's log-probs", unwell=False) from error

    async def _load_adapter(self, policy: ServedPolicy) -> None:
        asked = {"lora_name": policy.name, "lora_path": str(policy.folder)}
        loaded = await self.client.post(f"{self.url}/v1/load_lora_adapter", json=asked)
        if loaded.status_code != httpx.codes.OK and "already" not in loaded.text:
            said = f"adapter not loaded: {self._quoted(loaded.text)}"
            raise AttemptFailed(f"http_{loaded.status_code}", said, unwell=True)

    async def _read_weights(self, policy: ServedPolicy) -> None:
        """In place of those that it has, see :mod:`p2o_core.engines.swap`. A server that can't has its base alone."""
        asked = {"method": SWAP, "kwargs": {"folder": str(policy.folder), "name": policy.name}}
        answer = await self.client.post(f"{self.url}/collective_rpc", json=asked)
        if answer.status_code == httpx.codes.NOT_FOUND:
            if policy.base:
                return
            raise EngineUnavailable(
                f"{self.url} takes no full weights. Mend: start it with `p2o serve` under policy.type full."
            )
        try:
            read = answer.status_code == httpx.codes.OK and set(answer.json()["results"]) == {policy.name}
        except (KeyError, TypeError, ValueError):
            read = False
        if not read:
            said = f"weights not read: {self._quoted(answer.text)}"
            raise AttemptFailed(f"http_{answer.status_code}", said, unwell=True)
        # what is cached of prompts is of the weights before, also should a run have died between the two calls
        (await self.client.post(f"{self.url}/reset_prefix_cache")).raise_for_status()

    async def _check_logprobs(self, body: dict[str, Any]) -> None:
        """Check that log-probs are those of the distribution sampled from. If so, halving the temperature doubles the
        gap between the two likeliest tokens; raw log-probs do not change."""
        gaps = []
        for temperature in (1.0, 0.5):
            choice = await self._post(body | {"max_tokens": 1, "temperature": temperature, "logprobs": PROBED})
            try:
                first, second, *_ = sorted(choice["logprobs"]["top_logprobs"][0].values(), reverse=True)
                gaps.append(first - second)
            except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
                raise AttemptFailed("junk", f"{type(error).__name__} in the log-probs", unwell=True) from error
        if gaps[0] > 1e-3 and gaps[1] < 1.5 * gaps[0]:
            raise EngineUnavailable(
                f"{self.url} returns raw log-probs. Mend: start it with `p2o serve`, or with --logprobs-mode "
                "processed_logprobs."
            )

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request; return the only choice of its answer."""
        try:
            response = await self.client.post(f"{self.url}/v1/completions", json=body)
        except httpx.TimeoutException as error:
            raise AttemptFailed("timeout", f"{self.config.timeout_s} s", unwell=True) from error
        except httpx.HTTPError as error:
            raise AttemptFailed("connection", type(error).__name__, unwell=True) from error
        status = response.status_code
        if status == httpx.codes.OK:
            try:
                (choice,) = response.json()["choices"]
            except (ValueError, KeyError, TypeError) as error:
                raise AttemptFailed("junk", self._quoted(response.text), unwell=False) from error
            return choice
        said = self._quoted(response.text)
        if NO_NUMBERS in response.text:
            raise NoNumbers(f"{self.url}: {said}")
        if may_pass(status) or status == httpx.codes.NOT_FOUND:  # not found: it lost our adapter
            raise AttemptFailed(f"http_{status}", said, unwell=status == httpx.codes.NOT_FOUND)
        raise EngineUnavailable(f"{self.url} refused a request for good, status {status}: {said}")

    def _quoted(self, answer: str) -> str:
        """Return the beginning of an answer, for messages. The API key is masked: a server may echo our headers, and
        the key must not reach a log."""
        key = api_key(self.config)
        return (answer.replace(key, "***") if key else answer)[:300]


def api_key(config: ServerEngineConfig) -> str:
    """Return the API key from the environment, blank for servers without one."""
    return os.environ.get(config.api_key_env, "") if config.api_key_env else ""
