"""DVC from inside a process: what is up to date, and recording what was made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.dvcfile import ProjectFile, load_file
from dvc.exceptions import ConfirmRemoveError, DvcException
from dvc.fs import localfs
from dvc.repo import Repo, lock_repo
from dvc.stage import Stage
from dvc.stage.cache import RunCacheNotFoundError
from dvc.stage.loader import StageLoader
from dvc_objects.fs.generic import test_links

from flows.versioning.dvc_lock import DvcLock, file_stamp, mend_lock
from flows.versioning.pipeline import PIPELINE_FILE
from p2o_core.schemas import BadInput
from tasks.running.storage import storage_errors

logging.getLogger("dvc").setLevel(logging.ERROR)


def in_git(workspace: Path) -> bool:
    return any((folder / ".git").exists() for folder in (workspace, *workspace.parents))


def without_git(workspace: Path) -> None:
    """Make DVC work in a folder that is no clone, an unpacked archive say: it versions data there, without commits."""
    with storage_errors(workspace):
        if not (workspace / ".dvc").exists():
            Repo.init(str(workspace), no_scm=True).close()
        config = Config(str(workspace / ".dvc"))
        if not config["core"].get("no_scm"):
            with config.edit("local") as local:  # not the config that a clone shares
                local["core"]["no_scm"] = True


DATA_LOGGERS = ("dvc_data.hashfile.transfer", "dvc_objects.fs.generic")
"""They say which files could not be sent."""


class PushFailed(Exception):
    """The remote is away. Everything is still in the local cache."""


class Versions:
    """The DVC side of a workspace. What changes between calls, parameters and outputs, is read anew by each. Kept are
    the opened repository, its locks aside (opening one is half of what a commit costs), dvc.yaml while nobody writes
    it, and what dvc.lock says, since that file has all stages of all iterations. A lock held by another process is
    waited for."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        if not in_git(workspace):
            without_git(workspace)
        if not (workspace / ".dvc").exists():
            raise BadInput(f"{workspace}: no DVC repository. Mend: `dvc init` there, or name another --workspace.")
        self._links: bool | None = None
        self._repo: Repo | None = None
        self._file: tuple[tuple[int, ...], ProjectFile] | None = None
        self.lock = DvcLock(workspace)
        try:
            stale = self._status()
        except DvcException:  # a dvc.lock that a kill cut short, for example
            with storage_errors(workspace):
                mend_lock(workspace)
            stale = self._status()
        self._stale: set[str] | None = stale

    @contextmanager
    def _open(self) -> Iterator[Repo]:
        """The locked repository, with the workspace as current folder: DVC reads paths relative to that."""
        with storage_errors(self.workspace), chdir(self.workspace):
            if self._repo is None:
                self._repo = Repo(_wait_for_lock=True)
            with lock_repo(self._repo):  # which also forgets what DVC knows of files, at both ends
                yield self._repo

    def _stages(self, repo: Repo) -> StageLoader:
        """dvc.yaml's stages by name, with what dvc.lock says of each. DVC's own way there, by a target, parses all of
        dvc.lock for every stage, and by none walks through the whole workspace."""
        stamp = (*file_stamp(self.workspace / PIPELINE_FILE), *file_stamp(self.workspace / "params.yaml"))
        if self._file is None or self._file[0] != stamp:  # its templates may name parameters
            self._file = stamp, load_file(repo, str(self.workspace / PIPELINE_FILE))
        file = self._file[1]
        return StageLoader(file, file.contents, {"stages": self.lock.entries(repo)})

    def _status(self) -> set[str]:
        """The stages that are not up to date."""
        with self._open() as repo:
            stages = self._stages(repo)
            return {name for name in stages if stages[name].status()}

    def is_up_to_date(self, name: str) -> bool:
        """Outputs exist and match dvc.lock, and neither dependencies nor parameters changed since.

        Until something is committed, one status of the whole pipeline answers for all of its stages.
        """
        if self._stale is None:
            with self._open() as repo:
                return not self._stages(repo)[name].status()
        return name not in self._stale

    def restore(self, name: str) -> bool:
        """Fetch the outputs from DVC's run cache, where this very command ran on these very inputs before."""
        with storage_errors(self.workspace), _first_error(), self._open() as repo:
            stage = self._stages(repo)[name]
            try:
                repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                return False
            except ConfirmRemoveError:  # damaged files lie in the way, and all of the outputs are in the cache
                for output in stage.outs:
                    output.remove()
                repo.stage_cache.restore(stage)
        self.commit(name)
        return True

    def commit(self, name: str) -> None:
        """Record dependencies, parameters and outputs as they are on disk."""
        self._stale = None
        with storage_errors(self.workspace), _first_error(), self._open() as repo:  # one message, the exception's
            if self._links is None:
                self._links = _links(repo)
            stage = self._stages(repo)[name]
            stage.save()
            stage.commit(relink=self._links)
            self.lock.put(stage)

    def keep_current(self, name: str) -> None:
        """Record a stage whose outputs this process has just written, unless they are those of the record."""
        if not self.is_up_to_date(name):
            self.commit(name)

    def check_remote(self) -> None:
        """Raises BadInput where there is no default remote to push to."""
        with self._open() as repo:
            if not repo.config["core"].get("remote"):
                raise BadInput(
                    f"{self.workspace / 'params.yaml'}: field 'tracking.push' is on and DVC has no default remote. "
                    "Mend: `dvc remote add --default NAME URL` (with --global for all workspaces), or push: false."
                )

    def push(self, names: list[str]) -> None:
        """Send the outputs of these stages to the default remote; what is there already is not sent again.

        Raises:
            PushFailed: the remote cannot be reached, or did not take everything.
        """
        with _first_error() as said:
            try:
                with self._open() as repo:
                    remote = repo.cloud.get_remote()
                    if remote.worktree or remote.fs.version_aware:  # a bucket's own versions: DVC's index has their ids
                        repo.push(targets=names)
                    else:
                        _push(repo, [self._stages(repo)[name] for name in names])
            except Exception as error:  # each kind of remote raises the errors of its own library
                raise PushFailed(f"{type(error).__name__}: {'; '.join([str(error), *said])}") from error


def _push(repo: Repo, stages: list[Stage]) -> None:
    """DVC's own push of a few stages collects those of all iterations before. Raises DvcException."""
    wanted: dict[Any, set[Any]] = {}
    for stage in stages:
        for store, objects in stage.get_used_objs(push=True).items():
            wanted.setdefault(store, set()).update(objects)
    failed = sum(len(repo.cloud.push(objects, odb=store).failed) for store, objects in wanted.items())
    if failed:
        raise DvcException(f"{failed} files were not taken")


def _links(repo: Repo) -> bool:
    """Whether DVC's cache and workspace can share a file (reflink, or a link where cache.type asks for one). If not,
    its commit would write every output anew from the copy it has just made: gigabytes, which we would hash again."""
    cache = repo.cache.local
    links = test_links(cache.cache_types, cache.fs, cache.path, localfs, str(Path(repo.tmp_dir) / "link"))
    return links[:1] != ["copy"]


@contextmanager
def _first_error() -> Iterator[list[str]]:
    """Gathers the first thing DVC's packages log as an error, in place of a line for every file."""
    said: list[str] = []

    def gather(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and not said:
            cause = record.exc_info[1] if record.exc_info else None
            said.append(str(cause or record.getMessage()))
        return False

    loggers = [logging.getLogger(name) for name in DATA_LOGGERS]
    for logger in loggers:
        logger.addFilter(gather)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeFilter(gather)
