"""dvc.lock, written an entry at a time and mended after a kill.

DVC's own commit of a stage parses the whole file with comments and writes it anew in place, which takes longer with
every iteration. A run reads it once, appends what it makes, and writes the same bytes as DVC would.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2o_core.schemas import write_text
from tasks.parameters.reading import read_yaml

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

LOCK = "dvc.lock"
START = "schema: '2.0'\nstages:\n"
"""A lock without entries, as DVC begins one."""
ENTRY = re.compile(r"^  (?=\S).*:$", re.MULTILINE)
"""The line with a stage's name."""
SECTION = re.compile(r"^\S.*$", re.MULTILINE)


class DvcLock:
    """A workspace's dvc.lock. ``parsed`` counts the entries that were read from the file: what a commit costs must not
    grow with it."""

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / LOCK
        self.parsed = 0
        self._entries: dict[str, Any] = {}
        self._open_end = False
        """Whether an entry may be appended: ``stages`` is the last section, and the last line is whole."""
        self._read: tuple[int, ...] | None = None

    def entries(self, repo: Repo) -> dict[str, Any]:
        """What DVC recorded, by stage; read again only when another process wrote the file.

        Raises:
            DvcException: it cannot be read.
        """
        stamp = file_stamp(self.path)
        if self._read is None or stamp != self._read:
            from dvc.dvcfile import Lockfile

            self._entries = dict(Lockfile(repo, str(self.path)).load().get("stages") or {})
            self.parsed += len(self._entries)
            self._open_end = bool(self._entries) and _ends_in_stages(self.path.read_text())
            self._read = stamp
        return self._entries

    def put(self, stage: PipelineStage) -> None:
        """Record a stage as its objects say; a new one costs its own lines."""
        from dvc.dvcfile import Lockfile
        from dvc.stage.serialize import to_lockfile
        from dvc.utils.serialize import dumps_yaml, loads_yaml

        entries = self.entries(stage.repo)
        text = dumps_yaml({"stages": to_lockfile(stage)})
        ((name, entry),) = loads_yaml(text)["stages"].items()
        if entries.get(name) == entry:
            return
        block = text.removeprefix("stages:\n")
        if name not in entries and self._open_end:
            with self.path.open("ab", buffering=0) as end:  # one write: a kill leaves all of it or nothing
                end.write(block.encode())
        elif not self.path.exists():
            write_text(self.path, START + block)
            self._open_end = True
        elif self._open_end and (changed := _replaced(self.path.read_text(), block)):
            write_text(self.path, changed)
        else:  # sections of the user's own behind the stages, or another way of writing: DVC knows it
            Lockfile(stage.repo, str(self.path)).dump(stage)
            self._read = None
            return
        entries[name] = entry
        self._read = file_stamp(self.path)


def file_stamp(path: Path) -> tuple[int, ...]:
    """Another one after every write; empty where there is no file."""
    if not path.exists():
        return ()
    found = path.stat()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _ends_in_stages(text: str) -> bool:
    sections = SECTION.findall(text)
    return text.endswith("\n") and sections[-1:] == ["stages:"]


def _lines_of(text: str, head: str) -> tuple[int, int] | None:
    """From where to where the entry stands that begins with the line ``head``."""
    start = text.find(f"\n{head}\n") + 1
    if not start:
        return None
    following = re.compile(r"^ {0,2}\S", re.MULTILINE).search(text, start + len(head))
    return start, following.start() if following else len(text)


def _replaced(text: str, block: str) -> str:
    """The text with this entry in place of the one of the same name; blank where there is none."""
    where = _lines_of(text, block.split("\n", 1)[0])
    return text[: where[0]] + block + text[where[1] :] if where else ""


def mend_lock(workspace: Path) -> None:
    """Leave out the last entry of a dvc.lock that does not load, since a kill cut it. Should that not help, start anew:
    what is finished is known from the manifests, and recorded again."""
    lock = workspace / LOCK
    if _loads(workspace):
        return
    text = lock.read_text(errors="replace")
    heads = list(ENTRY.finditer(text))
    if len(heads) > 1:
        write_text(lock, text[: heads[-1].start()])
    if len(heads) <= 1 or not _loads(workspace):
        lock.unlink()


def _loads(workspace: Path) -> bool:
    """Whether DVC can read it; none at all is fine."""
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not (workspace / LOCK).exists():
        return True
    with chdir(workspace), Repo() as repo:
        try:
            return bool(Lockfile(repo, LOCK).load())
        except DvcException:
            return False


def recorded_outputs(workspace: Path, stage: str, manifest: Path) -> dict[str, str]:
    """What DVC's cache calls the outputs of a stage, by path; read from the stage's own lines, without DVC.

    Empty unless the record is of the outputs that lie there: the manifest among them has the digest that it says.
    """
    lock = workspace / LOCK
    if not lock.exists():
        return {}
    text = lock.read_text()
    where = _lines_of(text, f"  {stage}:")
    if where is None:
        return {}
    entry = read_yaml(text[slice(*where)], lock)[stage]
    outputs = {out["path"]: out["md5"] for out in entry.get("outs", []) if "md5" in out}
    here = hashlib.md5(manifest.read_bytes(), usedforsecurity=False).hexdigest()
    return outputs if outputs.get(os.path.relpath(manifest, workspace)) == here else {}
