"""What one clone pushes another one has: remotes, artifacts by name, and a cache that keeps what the registry names."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.api import artifacts_show
from dvc.repo import Repo
from mlflow import MlflowClient

from flows.garbage import Garbage, collect_garbage
from flows.tracking.models import DVC_TAG, cached_as, registered_versions
from flows.versioning.workspace import share_cache
from p2o_core.digests import digest
from p2o_core.schemas import BadInput
from tasks.running.layout import Layout
from tests.loopback import free_port
from tests.platform.servers import Server, at_home
from tests.platform.test_doors import digests
from tests.platform.workspace import Workspace

SECRET = "not-for-git"
GIT = "git -c user.email=t@t -c user.name=t"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with at_home("moto_server", "/moto-api/", tmp_path_factory.mktemp("s3")) as server:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/store", method="PUT"), timeout=60)
        yield server


def committed(workspace: Workspace) -> Workspace:
    """With dvc.lock in git."""
    workspace.sh(f"git add -A && {GIT} commit -qm run")
    return workspace


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_pushed_here_pulled_there_and_nothing_computed(
    copy: Workspace, trained: Workspace, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "folder":
        add, secrets = f"dvc remote add --default store {tmp_path / 'store'}", "true"
    else:
        url = request.getfixturevalue("s3").url
        add = f"dvc remote add --default store s3://store/p2o && dvc remote modify store endpointurl {url}"
        keys = ("access_key_id", "secret_access_key")
        secrets = " && ".join(f"dvc remote modify --local store {key} {SECRET}" for key in keys)
    copy.sh(f"{add} && {secrets} && dvc push -q")
    committed(copy)
    assert copy.sh(f"git grep {SECRET}", check=False).returncode == 1, "no secret in what git has"
    copy.sh(f"git clone -q . {tmp_path / 'other'}")
    other = Workspace(tmp_path / "other", copy.settings)
    other.sh(f"{secrets} && dvc pull -q")
    assert digests(other) == digests(trained)
    assert all((other.root / name).exists() for name in digests(other))
    assert "up to date" in other.sh("dvc repro").stdout
    if kind == "s3":
        shown = other.sh("p2o run").stdout.splitlines()
        steps = [line for line in shown if line.startswith(("prepare", "rollout@", "distill@", "summary"))]
        assert all(line.endswith(": up to date") for line in steps)


def test_policy_and_templates_by_name(copy: Workspace) -> None:
    committed(copy)
    copy.sh(f"{GIT} tag -a policy@v0.1.0 -m first")
    assert artifacts_show("policy", repo=str(copy.root))["path"] == "data/runs/tiny/2/policy"
    Repo(str(copy.root)).artifacts.download("policy", version="v0.1.0", out=str(copy.root.parent / "got"))
    assert digest(copy.root.parent / "got") == digest(copy.run / "2" / "policy")


def test_what_the_registry_names_stays(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace under experiments/ and the clone's own run are deleted: of the first nothing stays, of the second
    what its registered policy needs, and that comes back out of the cache."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store := f"sqlite:///{copy.root / 'mlflow.db'}")
    committed(copy)
    (version,) = registered_versions(MlflowClient(store))
    needed = json.loads(version.tags[DVC_TAG])
    assert needed == cached_as(Layout(copy.root, "tiny"), 2)
    everything = counted(copy)
    assert everything.kept > 60

    branch = copy.root / "experiments" / "another"
    branch.mkdir(parents=True)
    share_cache(branch, copy.root)
    (branch / "mine.txt").write_text("mine")
    Workspace(branch).sh("dvc add -q mine.txt")
    assert counted(copy).kept == everything.kept + 1
    shutil.rmtree(branch)
    junk = everything.unnamed + 1
    assert counted(copy) == Garbage(everything.kept, everything.kept_bytes, junk, everything.unnamed_bytes + 4)

    policy = copy.run / "2" / "policy"
    expected = digest(policy)
    shutil.rmtree(copy.root / "data" / "runs")
    copy.sh("rm dvc.lock")
    assert counted(copy).unnamed == junk, "the branch names it"
    copy.sh(f"git rm -q --cached dvc.lock && {GIT} commit -q --amend -m run")
    before = counted(copy)
    assert before.unnamed > 10
    assert counted(copy) == before, "counting deletes nothing"
    said = copy.sh("p2o gc --delete").stdout
    assert f"{before.unnamed} objects" in said
    assert counted(copy) == Garbage(before.kept, before.kept_bytes, 0, 0)

    name = next(value for path, value in needed.items() if path.endswith("2/policy"))
    (copy.root / "back.dvc").write_text(f"outs: [{{md5: {name}, hash: md5, path: back}}]\n")
    copy.sh("dvc checkout -q back.dvc")
    assert digest(copy.root / "back") == expected
    with Repo(str(copy.root)) as repo:
        assert all(repo.cache.local.exists(value) for value in needed.values())


def counted(workspace: Workspace) -> Garbage:
    return collect_garbage(workspace.root, delete=False)


def test_an_unknown_need_deletes_nothing(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is away, or a version was registered by an earlier release and its workspace is gone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BadInput, match="MLflow: unreachable"):
        collect_garbage(copy.root, delete=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store := f"sqlite:///{copy.root / 'mlflow.db'}")
    client = MlflowClient(store)
    (version,) = registered_versions(client)
    client.delete_model_version_tag(version.name, version.version, DVC_TAG)
    with pytest.raises(BadInput, match=r"version 1 of tests does not say.*Mend: `p2o promote --candidate`"):
        collect_garbage(copy.root, delete=True)  # the copy's policy is the one of `trained`, elsewhere
    client.set_model_version_tag(version.name, version.version, "p2o.workspace", str(copy.root))
    assert collect_garbage(copy.root, delete=True).kept > 60, "the version's workspace has it and says so"
