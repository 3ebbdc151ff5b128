"""dvc.lock after a kill: DVC writes it in place, and a part of it is nothing that DVC can read."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path

from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from p2o_core.schemas import written_whole

LOCK = "dvc.lock"
KEPT = Path(".dvc") / "tmp" / "dvc.lock.kept"


def keep_lock(workspace: Path) -> None:
    """Put a copy aside before DVC writes."""
    lock, kept = workspace / LOCK, workspace / KEPT
    if lock.exists():
        with written_whole(kept) as draft:
            shutil.copyfile(lock, draft)


def mend_lock(workspace: Path) -> None:
    """Put the copy in place of a dvc.lock that does not load. Should that not load either, start anew: what is finished
    is known from the manifests, and recorded again."""
    lock, kept = workspace / LOCK, workspace / KEPT
    if _loads(workspace):
        return
    if kept.exists():
        kept.replace(lock)
    if not _loads(workspace):
        lock.unlink()


def _loads(workspace: Path) -> bool:
    """Whether DVC can read it; none at all is fine."""
    if not (workspace / LOCK).exists():
        return True
    with chdir(workspace), Repo() as repo:
        try:
            return bool(Lockfile(repo, LOCK).load())
        except DvcException:
            return False
