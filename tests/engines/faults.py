"""A proxy on loopback that injects failures in front of a real server."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Faults:
    """``planned``: what happens to the first completion requests, one entry each: a status, ``timeout`` (three
    seconds of silence), ``ok``, or a key of ``bodies``, which is then the answer. Everything else is forwarded."""

    target: str
    planned: list[str]
    bodies: dict[str, bytes] = field(default_factory=dict)
    injected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, path: str, body: bytes) -> str:
        probing = json.loads(body).get("logprobs") == 2  # the engine asking what kind of log-probs there are
        with self.lock:
            if probing or not self.planned or "completions" not in path:
                return "ok"
            self.injected.append(self.planned.pop(0))
            return self.injected[-1]


@contextmanager
def proxied(faults: Faults) -> Iterator[str]:
    """The proxy's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.forward(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fault = faults.next(self.path, body)
            if fault == "timeout":
                time.sleep(3)
                self.answer(200, b"{}")
            elif fault == "ok":
                self.forward(body)
            elif fault.isdigit():
                self.answer(int(fault), b'{"error": "injected"}')
            else:
                self.answer(200, faults.bodies[fault])

        def forward(self, body: bytes | None) -> None:
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(faults.target + self.path, data=body, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.answer(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                self.answer(error.code, error.read())

        def answer(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # a client that gave up

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
