"""What DVC's cache holds that nobody names any more: `p2o gc`. Named are the outputs of every workspace, of branches,
tags and DVC's experiments, and the policies in MLflow's registry with the base and the problems that they belong to."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from pathlib import Path

from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.scm import Git
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.gc import gc
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.tracking.delivery import store_needed
from flows.tracking.models import DVC_TAG, POLICY_TAG, WORKSPACE_TAG, cached_as, policy_digest, registered_versions
from flows.tracking.store import SQLITE, tracking_uri
from flows.versioning.dvc_lock import LOCK
from p2o_core.schemas import BadInput
from tasks.running.layout import Layout, home
from tasks.running.storage import storage_errors

logging.getLogger("dvc").setLevel(logging.ERROR)  # a branch without dvc.lock is a warning for each output

TEMPORARY = ("tmp/exps/*/.dvc", "tmp/exps/standalone/*/.dvc")
"""Below .dvc: where DVC's queued experiments are at work."""


@dataclass(frozen=True)
class Garbage:
    """What a cache holds, in objects and bytes, and how much of it nobody names."""

    kept: int
    kept_bytes: int
    unnamed: int
    unnamed_bytes: int


def collect_garbage(workspace: Path, *, delete: bool) -> Garbage:
    """Count what nobody names in the cache of the clone that the workspace belongs to, and with ``delete`` remove it.

    While it counts no other process can put anything into the cache: it holds the DVC locks of all workspaces.

    Raises:
        BadInput: there is no DVC repository, a workspace cannot be read, MLflow is away, or a registered policy does
            not say what it needs; then nothing is removed.
    """
    root = home(workspace)
    if not (root / ".dvc").exists():
        raise BadInput(f"{root}: no DVC repository. Mend: name the clone with --workspace.")
    folders = workspaces(root)
    named = {HashInfo("md5", name) for names in registered_objects(root, folders).values() for name in names}
    with storage_errors(root), ExitStack() as stack:
        repos = []
        for folder in folders:
            repos.append(stack.enter_context(Repo(str(folder), _wait_for_lock=True)))
            stack.enter_context(lock_repo(repos[-1]))
        caches = {repo.cache.local.path: repo.cache.local for repo in repos}
        for repo in repos:
            named |= _named_by(repo, history=repo is repos[0] and isinstance(repo.scm, Git))
        for cache in caches.values():
            named |= set(_inside(cache, named))
        found = Garbage(*(sum(counts) for counts in zip(*(_count(c, named) for c in caches.values()), strict=True)))
        if delete:
            for cache in caches.values():
                gc(cache, named)
    return found


def workspaces(root: Path) -> list[Path]:
    """The clone, what lies under its experiments/, and DVC's experiments that are at work."""
    own = sorted(path.parent for path in (root / "experiments").glob("*/.dvc"))
    temporary = [path.parent for pattern in TEMPORARY for path in sorted((root / ".dvc").glob(pattern))]
    return [root, *own, *temporary]


def registered_objects(root: Path, folders: list[Path]) -> dict[str, list[str]]:
    """What MLflow's registered policies need, by version: names in DVC's cache.

    Raises:
        BadInput: MLflow is away, or a version says nothing and its policy lies in none of these folders.
    """
    uri = tracking_uri(root)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return {}
    unknown = ", and what its registry names is not known"
    with store_needed(uri, f"{unknown}. Mend: start it, or unset MLFLOW_TRACKING_URI; nothing was removed."):
        versions = registered_versions(MlflowClient(uri))
    return {f"{version.name} {version.version}": _needs(version, folders) for version in versions}


def _needs(version: ModelVersion, folders: list[Path]) -> list[str]:
    if said := version.tags.get(DVC_TAG):
        return list(json.loads(said).values())
    folder = Path(version.tags.get(WORKSPACE_TAG, ""))
    layout, iteration = Layout(folder, version.tags["p2o.experiment"]), int(version.tags["p2o.iteration"])
    try:
        if folder in folders and policy_digest(layout, iteration) == version.tags[POLICY_TAG]:
            return list(cached_as(layout, iteration).values())
    except (OSError, BadInput):
        pass  # as below: its manifest is gone
    raise BadInput(
        f"MLflow's registry: version {version.version} of {version.name} does not say what DVC's cache calls it, and "
        f"its policy is not in {folder} any more; nothing was removed. Mend: `p2o promote --candidate` where it lies, "
        "or delete the version."
    )


def _named_by(repo: Repo, *, history: bool) -> set[HashInfo]:
    """By the stages and .dvc files as they are, by all that dvc.lock says, iterations that dvc.yaml has no more
    included, and with ``history`` by branches, tags and DVC's experiments, queued ones too."""
    try:
        with chdir(repo.root_dir):
            used = repo.used_objs(all_branches=history, all_tags=history, all_experiments=history, force=True)
            lock = Lockfile(repo, str(Path(repo.root_dir) / LOCK)).load()
    except DvcException as error:
        raise BadInput(
            f"{repo.root_dir}: DVC cannot read what it names ({error}); nothing was removed. Mend: `p2o run` there, or "
            "remove the folder."
        ) from error
    named = {found for objects in used.values() for found in objects}
    outputs = [out for entry in (lock.get("stages") or {}).values() for out in entry.get("outs") or []]
    return named | {HashInfo("md5", out["md5"]) for out in outputs if "md5" in out}


def _inside(cache: HashFileDB, named: Iterable[HashInfo]) -> Iterator[HashInfo]:
    """The files of the folders among them; a folder that the cache does not have has none there."""
    for folder in [name for name in named if name.isdir and cache.exists(name.value or "")]:
        try:
            listed = list(Tree.load(cache, folder))
        except ObjectFormatError as error:
            raise BadInput(
                f"{cache.oid_to_path(folder.value)}: damaged, what it names is not known; nothing was removed. Mend: "
                "remove it, then `dvc fetch`, or `p2o run` where it was made."
            ) from error
        yield from (inside for _, _, inside in listed if inside is not None)


def _count(cache: HashFileDB, named: set[HashInfo]) -> tuple[int, int, int, int]:
    names = {name.value for name in named}
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for name in cache.all():
        sizes[name in names].append(Path(cache.oid_to_path(name)).stat().st_size)
    return len(sizes[True]), sum(sizes[True]), len(sizes[False]), sum(sizes[False])
