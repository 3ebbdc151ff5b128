"""One run a workspace at a time. The lock is the kernel's and ends with its process, however that ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from p2o_core.schemas import BadInput, write_json
from tasks.running.storage import storage_errors

WORKSPACE_LOCK = ".p2o.lock"


@contextmanager
def file_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock ``path`` while the block runs; ``what`` is told to others who want it.

    The empty file ``path`` stays: deleted, it would let two in, one on the old file and one on a new one. Beside it,
    ``<path>.json`` says who holds it and goes with the block (after a kill with the next holder).

    Raises:
        BadInput: another process holds it, and ``wait`` is off; the message says which, since when, doing what.
    """
    lock = FileLock(path)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            raise BadInput(f"{path.parent}: {holder(path)}. Mend: wait for it, --wait, or stop it.") from None
    try:
        with storage_errors(path.parent):
            _sign(path, what)
        yield
    finally:
        words(path).unlink(missing_ok=True)
        lock.release()


def words(path: Path) -> Path:
    """The file that says who holds the lock ``path``."""
    return path.with_name(f"{path.name}.json")


def holder(path: Path) -> str:
    """In words: who holds the lock."""
    try:
        said: dict[str, Any] = json.loads(words(path).read_text())
        return f"process {said['pid']} ({said['what']}) has been at work here since {said['since']}"
    except (OSError, ValueError, KeyError):
        return "another process is at work here"


def _sign(path: Path, what: str) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(words(path), {"pid": os.getpid(), "what": what, "since": since})


def command() -> str:
    """This process, as its user typed it."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
