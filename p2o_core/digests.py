"""What a file or folder holds, as one number: how artefacts, units and checkpoints are recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(path: Path) -> str:
    """sha256 of a file; of a folder, over its files' relative names and digests in sorted order."""
    if path.is_dir():
        whole = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
        return whole.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mark(path: Path) -> str:
    """The digest's beginning, with which names end whose content has to be recognised: units and checkpoints."""
    return digest(path)[:16]


def is_whole(path: Path) -> bool:
    """The content of a path whose name ends in its :func:`mark` is what the name says."""
    return path.stem.endswith(mark(path))
