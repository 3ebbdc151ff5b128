"""One vLLM server behind OpenAI's protocol: is it well, has it our adapter, and what does it answer."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from p2o_core.config import ServerEngineConfig

NO_NUMBERS = "Out of range float values are not JSON compliant"
"""What Python's JSON says of NaN and infinity."""
PROBED = 5
"""Likeliest tokens asked for when two are needed: tokens with the same text, parts of a character, count once."""


def may_pass(status: int) -> bool:
    """Whether an HTTP status says "later" rather than "never": 408, 409, 425, 429, and all from 500 on. The rule for
    every endpoint that is asked: rollout servers and teachers."""
    return status in (408, 409, 425, 429) or status >= 500


class EngineUnavailable(RuntimeError):
    """No server could answer; the message names them and what they said last."""


class NoNumbers(Exception):
    """A log-prob of the answer is NaN or infinite, which vLLM's JSON cannot say (it answers 400): the policy's fault,
    the same on every server."""


class AttemptFailed(Exception):
    """An attempt that may be made again, ``kind`` being ``connection``, ``timeout``, ``http_500`` … or ``junk``;
    ``unwell``: the server's health is to be asked before the next one."""

    def __init__(self, kind: str, detail: str, *, unwell: bool) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.unwell = unwell


@dataclass(frozen=True)
class Answer:
    """Token ids and their log-probs under the distribution sampled from, one each; ``truncated`` at ``max_tokens``."""

    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    truncated: bool


class Server:
    """``well`` is false until :meth:`check` has passed, and again after a failure that puts it in doubt."""

    def __init__(self, url: str, config: ServerEngineConfig, client: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.config = config
        self.client = client
        self.well = False
        self.last_error = "not asked yet"
        self.lock = asyncio.Lock()

    async def check(self, body: dict[str, Any], adapter: Path | None) -> None:
        """Health, adapter (under the name that ``body``, any request, calls its model) and kind of log-probs.

        Raises:
            httpx.HTTPError, AttemptFailed: not well, perhaps later.
            EngineUnavailable: it was started in a way that does not do.
        """
        (await self.client.get(f"{self.url}/health", timeout=10.0)).raise_for_status()
        if adapter is not None:
            asked = {"lora_name": body["model"], "lora_path": str(adapter)}
            loaded = await self.client.post(f"{self.url}/v1/load_lora_adapter", json=asked)
            if loaded.status_code != httpx.codes.OK and "already" not in loaded.text:
                said = f"adapter not loaded: {self._quoted(loaded.text)}"
                raise AttemptFailed(f"http_{loaded.status_code}", said, unwell=True)
        await self._check_logprobs(body)

    async def complete(self, body: dict[str, Any]) -> Answer:
        """The answer to a request that asks for token ids and log-probs.

        Raises:
            AttemptFailed: try again, here or elsewhere.
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

    async def _check_logprobs(self, body: dict[str, Any]) -> None:
        """At half the temperature the gap between the two likeliest tokens doubles, if log-probs are those of the
        distribution sampled from; raw ones do not move."""
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
        """The answer's only choice."""
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
        """The beginning of what a server said, for messages; a server that echoes our headers must not put the key
        into a log."""
        key = api_key(self.config)
        return (answer.replace(key, "***") if key else answer)[:300]


def api_key(config: ServerEngineConfig) -> str:
    """From the environment; blank for servers without one."""
    return os.environ.get(config.api_key_env, "") if config.api_key_env else ""
