"""A disk that is full or may not be written to: one clear error, and nothing half done left behind."""

from __future__ import annotations

import errno
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from p2o_core.schemas import BadInput

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
RUST_ERROR = re.compile(r"os error (\d+)")
"""safetensors says errno in its message only."""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk under ``folder`` as BadInput with the mend; all others pass."""
    try:
        yield
    except (OSError, SafetensorError, sqlite3.OperationalError) as error:
        number = _errno(error)
        if number in FULL:
            raise BadInput(
                f"{folder}: the disk is full ({error}). Nothing half written was kept. Mend: free space (`dvc gc "
                "--workspace` drops old versions from DVC's cache) and start again: finished units are still there."
            ) from error
        if number in CLOSED:
            raise BadInput(
                f"{folder}: not writable ({error}). Mend: correct the folder's permissions or mount, and start again."
            ) from error
        raise


def check_room(folder: Path, mib: int) -> None:
    """Raises BadInput where the disk that ``folder`` is on, or will be, has less than ``mib`` MiB left."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**20
    if free < mib:
        raise BadInput(
            f"{there}: the disk is full ({free:.1f} MiB left, {mib} are needed to start). Mend: free space (`dvc gc "
            "--workspace` drops old versions from DVC's cache) and start again."
        )


def remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing is, and those above it, up to one that may not be removed, as a mount."""
    with suppress(OSError):
        while folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, sqlite3.OperationalError):  # DVC's notes of what it has hashed
        return errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else None
    match = RUST_ERROR.search(str(error))
    return int(match[1]) if match else None
