"""The process of a run's own Prefect server: ``python -m flows.lifecycle.server_process APPLICATION DESCRIPTOR``.

``uvicorn`` with three differences: it listens on a socket that it is handed, so that no port is taken in between; it
collects no garbage while it imports; and it ends when its standard input does, which whoever started it holds open.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from tasks.running.imports import importing


def main() -> None:
    application, descriptor = sys.argv[1], int(sys.argv[2])
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    with importing():
        import uvicorn

        config = uvicorn.Config(application, factory=True, log_level="error", lifespan="on")
        config.load()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_the_run() -> None:
    while os.read(sys.stdin.fileno(), 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
