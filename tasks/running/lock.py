"""One run a workspace at a time. The lock is the kernel's and ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from p2o_core.schemas import BadInput
from tasks.running.storage import storage_errors

WORKSPACE_LOCK = ".p2o.lock"


@contextmanager
def alone(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; ``what`` is told to others who want it.

    Raises:
        BadInput: another process holds it, and ``wait`` is off; the message says which, since when, doing what.
    """
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _locked(path, wait)
    with stream:
        _sign(stream, what)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, wait: bool) -> IO[str]:
    """The file, locked. One that its last holder deleted meanwhile is let go: locked is what lies there."""
    while True:
        stream = path.open("a+")  # not truncated by opening it: the holder's words stay readable
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise BadInput(f"{path.parent}: {holder(path)}. Mend: wait for it, --wait, or stop it.") from None
        if path.exists() and path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
            return stream
        stream.close()


def holder(path: Path) -> str:
    """In words: who holds the lock."""
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        return f"process {said['pid']} ({said['what']}) has been at work here since {said['since']}"
    except (OSError, ValueError, KeyError):
        return "another process is at work here"


def _sign(stream: IO[str], what: str) -> None:
    stream.truncate(0)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    stream.write(json.dumps({"pid": os.getpid(), "what": what, "since": since}) + "\n")
    stream.flush()


def command() -> str:
    """This process, as its user typed it."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
