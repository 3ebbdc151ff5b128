"""Policy folders on their way to the actors: once into the object store, once a node onto its disk.

No file system is shared. A folder is known by its digest (:func:`p2o_core.digests.digest`), which an actor computes
anew from the files that it loads.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from p2o_core.digests import digest

PREFIX = f"p2o-actors-{os.getuid()}-"


@dataclass(frozen=True)
class Weights:
    """A policy folder in the object store: the digest it must have, and each file's object by relative name.
    ``size`` counts bytes."""

    digest: str
    files: dict[str, Any]
    size: int


def sent(folder: Path) -> Weights:
    """Put a folder's files into the object store, where every node fetches them from once."""
    import ray

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): ray.put(np.fromfile(path, dtype=np.uint8)) for path in paths}
    return Weights(digest(folder), files, folder_size(folder))


def folder_size(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Shelf:
    """A node's folder of policies, shared by its actors. It goes with the last of them: what a node's dead actors left
    behind, the next one deletes. ``job`` tells the runs apart that use one cluster."""

    def __init__(self, root: str, job: str) -> None:
        parent = Path(root or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = parent / f"{PREFIX}{job}"
        self._lock = _shared(self.folder.with_suffix(".lock"))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for other in set(parent.glob(f"{PREFIX}*.lock")) - {self.folder.with_suffix(".lock")}:
            _delete_unused(other)

    def folder_of(self, weights: Weights, kept: Collection[str]) -> Path:
        """The folder with these files; the first actor of a node to ask writes it. Folders of other digests than
        ``kept`` are deleted."""
        target = self.folder / weights.digest
        with self._alone():
            for old in self.folder.iterdir():
                if old.is_dir() and old.name not in {weights.digest, *kept}:
                    shutil.rmtree(old, ignore_errors=True)
            if not target.exists():
                self._write(weights, target)
        return target

    def close(self) -> None:
        self._lock.close()
        _delete_unused(self.folder.with_suffix(".lock"))

    def _write(self, weights: Weights, target: Path) -> None:
        import ray

        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self.folder))
        for name, content in zip(weights.files, ray.get([*weights.files.values()]), strict=True):
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content.tofile(path)
        draft.rename(target)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One actor of the node at a time."""
        with (self.folder / "writing").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _shared(path: Path) -> IO[str]:
    """The lock file, locked for this process beside others until it ends, however it does."""
    while True:
        stream = path.open("a")
        fcntl.flock(stream, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                return stream
        stream.close()  # it was deleted between the two lines


def _delete_unused(lock: Path) -> None:
    """Delete a shelf unless an actor holds its lock."""
    try:
        with lock.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            os.unlink(lock)
    except (FileNotFoundError, BlockingIOError, PermissionError):
        pass  # gone, at work, or another user's
