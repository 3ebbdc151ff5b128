"""Machines and tools as they are: proxies, taken ports, no git, a short params.yaml, a deleted MLflow experiment."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml
from mlflow import MlflowClient

from flows.lifecycle.environment import prepare_environment
from flows.tracking.parents import check_project
from flows.versioning.pipeline import PARAMETERS, write_pipeline
from flows.versioning.versions import Versions
from p2o_core.config import EvolveConfig, MineConfig, TeacherReflectorConfig
from p2o_core.engines.language_models import TeacherModel
from p2o_core.schemas import BadInput
from tasks.parameters.arms import apply_settings
from tasks.parameters.experiment import check_experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.runner import write_parameters
from tasks.running.storage import check_room
from tests.clock import PATIENCE_S
from tests.core.test_teacher_away import says_there
from tests.loopback import served
from tests.platform.workspace import REPOSITORY, Workspace, new_workspace

SHORT = "experiment: short\niterations: {'1': 0, '2': 1}\n" + yaml.safe_dump(
    {"rollout": {"problems": 8, "max_new_tokens": 28}, "evaluate": {"max_new_tokens": 28}}
)
"""What has no default, and nothing else."""


def test_what_has_a_default_may_be_left_out() -> None:
    short = check_experiment(SHORT, name="params.yaml")
    assert (short.prepare.type, short.policy.type, short.engine.type) == ("microworld", "full", "embedded")
    assert short.mine == MineConfig()
    assert short.evolve == EvolveConfig()
    empty = "mine:\nhealth:\npolicy: {device: cpu}\nengine: {rows_per_batch: 8}\nprepare: {layers: 2}\n"
    named = check_experiment(f"{SHORT}{empty}evolve: {{reflector: {{max_phrases: 2}}}}", name="params.yaml")
    assert (named.policy.type, named.engine.rows_per_batch, named.evolve.reflector.type) == ("full", 8, "phrases")
    with pytest.raises(BadInput, match=r"parameter 'rollout.max_new_tokens' is missing"):
        check_experiment(SHORT.replace("rollout:\n  max_new_tokens: 28", "rollout:"), name="params.yaml")


def test_an_arm_multiplies_a_default() -> None:
    content = yaml.safe_load(SHORT)
    apply_settings(content, {"rollout.samples": "*2", "distill.learning_rate": "*10", "evolve.enabled": False})
    made = check_experiment(yaml.safe_dump(content), name="params.yaml")
    assert (made.rollout.samples, made.evolve.enabled) == (12, False)
    assert made.distill.learning_rate == pytest.approx(1e-5)
    with pytest.raises(BadInput, match=r"no parameter 'rollout.sample' to multiply"):
        apply_settings(content, {"rollout.sample": "*2"})


def test_dvc_sees_defaults_and_edits_of_a_short_params_yaml(fresh: Callable[[], Workspace]) -> None:
    workspace = fresh()
    (workspace.root / "params.yaml").write_text(SHORT)
    experiment = load_experiment(workspace.root / "params.yaml")
    write_parameters(experiment, Layout(workspace.root, "short"))
    Versions(workspace.root).keep_current(PARAMETERS)
    changed = json.loads(workspace.sh("dvc status --json").stdout)
    assert PARAMETERS not in changed
    assert "mine@2" in changed
    workspace.edit("params.yaml", "problems: 8", "problems: 9")
    assert PARAMETERS in json.loads(workspace.sh("dvc status --json").stdout)
    workspace.sh("dvc repro parameters")
    content = json.loads((workspace.root / "data" / "params.json").read_text())
    assert (content["rollout"]["problems"], content["mine"]) == (9, {"near_hard": True, "window": 1})


@pytest.fixture
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "")  # so that it is put back afterwards
    monkeypatch.setenv("no_proxy", "")
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxies_do_not_stand_before_loopback(
    without_proxies: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    without_proxies.setenv(variable, "http://127.0.0.1:9")
    without_proxies.setenv("NO_PROXY", "intranet.example")
    with served(says_there) as url:
        settings = {"base_url": f"{url}/v1", "model": "m", "retries": 0, "attempts": 1, "patience_s": 2}
        (reply,) = TeacherModel(TeacherReflectorConfig.model_validate(settings), "key", seed=1).complete(["one"])
        assert reply.text == "there", "without the environment's help"
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        prepare_environment(tmp_path)
        assert httpx.get(url).status_code == 200
        asks = f"import requests, urllib.request as u; requests.get({url!r}); u.urlopen({url!r})"
        subprocess.run(["python", "-c", asks], check=True)
    prepare_environment(tmp_path)
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intranet.example,localhost,127.0.0.1,::1"


def test_a_socks_proxy_that_httpx_cannot_use(without_proxies: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_proxies.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:9")
    without_proxies.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"socksio.*Mend") as refusal:
        prepare_environment(tmp_path)
    assert "secret" not in str(refusal.value)


def without_git(folder: Path) -> None:
    """As an archive of the repository holds it: the configuration of DVC, no git."""
    (folder / "params.yaml").write_text(SHORT)
    write_pipeline(folder, load_experiment(folder / "params.yaml").iterations)
    (folder / "data" / "sources").mkdir(parents=True)


@pytest.mark.parametrize("configured", [True, False])
def test_a_folder_without_git(tmp_path: Path, configured: bool) -> None:
    without_git(tmp_path)
    if configured:
        (tmp_path / ".dvc").mkdir()
        shutil.copyfile(REPOSITORY / ".dvc" / "config", tmp_path / ".dvc" / "config")
    write_parameters(load_experiment(tmp_path / "params.yaml"), Layout(tmp_path, "short"))
    versions = Versions(tmp_path)
    versions.keep_current(PARAMETERS)
    assert Versions(tmp_path).is_up_to_date(PARAMETERS)
    if configured:
        assert (tmp_path / ".dvc" / "config").read_bytes() == (REPOSITORY / ".dvc" / "config").read_bytes()
    assert PARAMETERS not in json.loads(Workspace(tmp_path).sh("dvc status --json").stdout), "dvc works there too"


@pytest.mark.parametrize("option", ["--mlflow-port", "--prefect-port"])
def test_a_taken_port(tmp_path: Path, option: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = Workspace(tmp_path).sh(f"p2o up {option} {port}", check=False, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert f"{option} {port}" in done.stderr
    assert "Mend" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_mlflow_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlproject").touch()
    check_project("mine", tmp_path)
    assert not (tmp_path / "mlflow.db").exists(), "asking makes no store"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    number = client.create_experiment("mine")
    check_project("mine", tmp_path)
    client.delete_experiment(number)
    with pytest.raises(BadInput, match=rf"'mine' was deleted.*restore.*--experiment-id {number}.*tracking.project"):
        check_project("mine", tmp_path)
    check_project("another", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    check_project("mine", tmp_path)


COMMANDS = ["run", "run --arm grpo", "stage prepare", "compare", "evaluate", "report", "doctor", "resolve", "track"]
COMMANDS += ["table", "plan", "arm p2o", "promote", "serve", "gc"]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_in_a_folder_that_is_no_workspace(tmp_path: Path, command: str) -> None:
    done = Workspace(tmp_path).sh(f"p2o {command}", check=False, timeout=PATIENCE_S)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Mend" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("this machine may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """No room for Prefect's database; and none for DVC's cache, whose two loggers told it file by file."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, "4m"):
        shutil.copytree(new_workspace(tmp_path / "clone").root, folder / "clone")
        workspace = Workspace(folder / "clone")
        with pytest.raises(BadInput, match="the disk is full"):
            check_room(folder / "later", 8)
        said = workspace.sh("p2o run", check=False)
        assert said.returncode == 2
        assert len(said.stderr.strip().splitlines()) == 1, said.stderr[-2000:]
        assert "the disk is full" in said.stderr
        (workspace.root / "data" / "params.json").write_text("{}" + " " * 2**20)
        with (folder / "fill").open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(b"x" * 4096):
                pass
        commit = (
            f"from pathlib import *; from flows.versioning.versions import *; Versions(Path()).commit({PARAMETERS!r})"
        )
        said = workspace.sh(f'python -c "{commit}"', check=False)
        assert "the disk is full" in said.stderr.strip().splitlines()[-1]
        assert "failed to transfer" not in said.stderr + said.stdout
