"""A proxy on loopback that injects failures in front of a real server."""

from __future__ import annotations

import json
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from p2o_core.engines.connection import PROBED
from tests.loopback import Reply, Request, forward, served


@dataclass
class Faults:
    """``planned``: what happens to the first completion requests, one entry each: a status, ``timeout`` (three
    seconds of silence), ``ok``, or a key of ``bodies``, which is then the answer. Everything else is forwarded."""

    target: str
    planned: list[str]
    bodies: dict[str, bytes] = field(default_factory=dict)
    injected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Reply:
        fault = self._next(request) if request.method == "POST" else "ok"
        if fault == "ok":
            return forward(request, self.target)
        if fault == "timeout":
            time.sleep(3)
            return Reply(200, b"{}")
        return Reply(int(fault), b'{"error": "injected"}') if fault.isdigit() else Reply(200, self.bodies[fault])

    def _next(self, request: Request) -> str:
        # the engine asks what kind of log-probs there are
        probing = json.loads(request.body).get("logprobs") == PROBED
        with self.lock:
            if probing or not self.planned or "completions" not in request.path:
                return "ok"
            self.injected.append(self.planned.pop(0))
            return self.injected[-1]


def proxied(faults: Faults) -> AbstractContextManager[str]:
    """The proxy's URL."""
    return served(faults.answer)
