"""What a file or folder holds, as one number: how artefacts, units and checkpoints are recognised."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

Identity = tuple[int, int, int, int]
"""Device, inode, size and modification time of a file: equal while nobody writes to it, also after a rename."""
TICK_NS = 20_000_000
"""File systems stamp times in steps of at most 10 ms. A file written later than this before its hash was done could be
written again with the same time, so its digest is not kept."""

_known: dict[Identity, str] = {}


def digest(path: Path) -> str:
    """sha256 of a file; of a folder, over its files' relative names and digests in sorted order.

    A process reads a file once as long as its identity stays: an iteration asks for the same gigabytes of weights
    again and again. Another process reads them itself, so that damage on disk is noticed.
    """
    if path.is_dir():
        whole = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
        return whole.hexdigest()
    before = _identity(path)
    if before not in _known:
        content = read_digest(path)
        if _identity(path) != before or time.time_ns() - before[3] < TICK_NS:
            return content
        _known[before] = content
    return _known[before]


def read_digest(path: Path) -> str:
    """sha256 of a file as it lies there, read to its end."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def short_digest(path: Path) -> str:
    """The digest's beginning, with which names end whose content has to be recognised: units and checkpoints."""
    return digest(path)[:16]


def is_whole(path: Path) -> bool:
    """The content of a path whose name ends in its :func:`short_digest` is what the name says."""
    return path.stem.endswith(short_digest(path))


def _identity(path: Path) -> Identity:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
