"""Secrets, hostile files and what the code may not do."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from p2o_core.config import FullPolicy, ServerEngineConfig, TeacherReflectorConfig
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.connection import EngineUnavailable
from p2o_core.engines.server import ServerEngine
from p2o_core.policy import Policy
from tests.loopback import Reply, Request, served
from tests.platform.workspace import REPOSITORY, Workspace

CANARY = "canary-7f3a91c2d4"
PACKAGES = ("flows", "tasks", "p2o_core", "microworld", "stress")
FORBIDDEN = {"eval", "exec", "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.fixture
def indiscreet() -> Iterator[str]:
    """An endpoint that says everything it was told, key included: in errors, in junk and in good answers."""
    replies = iter(["500", "503", "junk"])

    def answer(request: Request) -> Reply:
        echo, kind = str(request.headers), next(replies, "good")
        if kind == "junk":
            return Reply(200, f"<html>{echo}</html>".encode())
        if kind != "good":
            return Reply(int(kind), json.dumps({"error": {"message": echo}}).encode())
        message = {"role": "assistant", "content": "```\nWork on.\n```"}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        body |= {"id": request.headers["Authorization"], "object": "chat.completion", "created": 0, "model": echo}
        return Reply(200, json.dumps(body).encode())

    with served(answer) as url:
        yield f"{url}/v1"


def where_it_is(root: Path, word: str) -> list[Path]:
    """Every file below that holds the word: logs, databases and artefacts as bytes, parquet also as rows."""
    found = []
    for path in root.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if content[:4] == b"PAR1":
            content += str(pq.read_table(path).to_pylist()).encode()
        if word.encode() in content:
            found.append(path)
    return found


def test_a_secret_appears_nowhere(copy: Workspace, indiscreet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2O_TEACHER_API_KEY", CANARY)
    teacher = f"{{type: teacher, base_url: '{indiscreet}', model: m, backoff_s: 0.1}}"
    copy = copy.on_its_own()
    done = copy.sh(f"p2o run --iterations 1 --set 'evolve.reflector={teacher}'")
    (run,) = (copy.root / "experiments").iterdir()
    templates = json.loads(next(run.glob("data/runs/*/1/templates.json")).read_text())
    assert sum(templates["cost"]["failed"].values()) >= 3, "the indiscreet errors did happen"
    assert "Work on." in [t["text"] for t in templates["templates"]] or templates["cost"]["refused"]
    assert CANARY not in done.stdout + done.stderr
    assert where_it_is(copy.root, CANARY) == []
    (copy.root / "planted.log").write_text(f"Bearer {CANARY}")
    assert where_it_is(copy.root, CANARY) == [copy.root / "planted.log"], "the search does find it"


@pytest.mark.parametrize("status", [400, 503])
def test_a_server_that_echoes_the_key(base_folder: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Refused for good, and tried until the retries are used up: neither message has it."""
    monkeypatch.setenv("ENGINE_KEY", CANARY)
    told: list[str] = []

    def answer(request: Request) -> Reply:
        if request.path == "/health":
            return Reply(200)
        told.append(request.headers["Authorization"])
        return Reply(status, f"you sent {request.headers['Authorization']}".encode())

    asked = [RolloutRequest("p", "sum 1 a: +1 ?", "", (0,), 0, "plain")]
    with served(answer) as url:
        config = ServerEngineConfig(urls=(url,), api_key_env="ENGINE_KEY", retries=1, patience_s=1.0)
        with pytest.raises(EngineUnavailable, match=r"you sent Bearer \*\*\*"):
            ServerEngine(base_folder, base_folder, config).generate(asked, Sampling(1.0, 4))
    assert set(told) == {f"Bearer {CANARY}"}


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "https://host/v1?api_key=1", "https://k@host/v1"])
def test_keys_in_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="environment"):
        TeacherReflectorConfig(base_url=url, model="m")
    with pytest.raises(ValidationError, match="environment"):
        ServerEngineConfig(urls=(url,))


def test_weights_that_are_a_pickle_are_not_read(base_folder: Path, tmp_path: Path) -> None:
    for path in base_folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Policy.load(tmp_path, tmp_path, FullPolicy())


def test_code_of_a_checkpoint_is_not_run(base_folder: Path, tmp_path: Path) -> None:
    """A config that names a class of its own file: refused, or read without it; the file never runs."""
    for path in base_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises((ValueError, OSError)):
        Policy.load(tmp_path, tmp_path, FullPolicy())
    assert not (tmp_path / "ran").exists()


def test_the_code_reads_no_pickle_and_trusts_no_code() -> None:
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
                names |= {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) and node.module else set()
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    names.add(node.func.id)
                assert not names & FORBIDDEN, f"{path}:{getattr(node, 'lineno', 0)}: {names & FORBIDDEN}"
                if isinstance(node, ast.Call):
                    options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                    assert not options.get("trust_remote_code"), f"{path}:{node.lineno}"
                    assert not options.get("shell"), f"{path}:{node.lineno}"
                if isinstance(node, ast.Attribute):
                    owner = getattr(node.value, "id", "")
                    assert (owner, node.attr) not in {("torch", "load"), ("yaml", "load"), ("np", "load")}, path


def test_a_run_leaves_no_pickle_behind(trained: Workspace) -> None:
    left = [p for p in (trained.root / "data").rglob("*") if p.suffix in (".bin", ".pkl", ".pickle", ".pt", ".pth")]
    assert left == []


def test_every_listener_is_on_loopback() -> None:
    """Hosts that the code gives to servers."""
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            assert not re.search(r"0\.0\.0\.0|\"::\"", path.read_text()), path
