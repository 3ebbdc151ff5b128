"""Bad input is refused before any work, naming file, line or field, and the mend."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from p2o_core.schemas import BadInput, read_problems, write_rows
from p2o_core.types import Problem
from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.lock import WORKSPACE_LOCK
from tasks.running.manifests import SCHEMA_VERSION
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime
from tests.platform.workspace import REPOSITORY, Workspace

GOOD = {
    "id": ["a", "b"],
    "question": ["1+1", "1+2"],
    "answer": ["2", "3"],
    "difficulty": ["easy"] * 2,
    "split": ["t"] * 2,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": None}, ["column 'answer' is missing", "Mend"]),
        ({"id": ["a", "a"]}, ["row 2", "id 'a' was used before in row 1", "Mend"]),
        ({"answer": ["2", " "]}, ["row 2", "field 'answer' is empty", "Mend"]),
        ({"question": ["", "x"]}, ["row 1", "field 'question' is empty"]),
        ({"answer": ["2", None]}, ["row 2", "field 'answer' is empty"]),
        ({"alternatives": [["2.0"], ["3.0", " "]]}, ["row 2", "field 'alternatives' is empty", "Mend"]),
        ({"alternatives": [["2.0"], ["3.0", None]]}, ["row 2", "field 'alternatives' is empty", "Mend"]),
    ],
)
def test_problem_files(tmp_path: Path, change: dict, words: list[str]) -> None:
    columns = {name: values for name, values in (GOOD | change).items() if values is not None}
    path = tmp_path / "problems.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(BadInput) as refusal:
        read_problems(path)
    assert str(path) in str(refusal.value)
    assert all(word in str(refusal.value) for word in words)


def test_problem_files_with_and_without_alternatives(tmp_path: Path) -> None:
    """The column came later: a file of before is read as it was."""
    path = tmp_path / "problems.parquet"
    pq.write_table(pa.table(GOOD), path)
    old = read_problems(path)
    assert [problem.gold for problem in old] == ["2", "3"]
    new = [replace(old[0], alternatives=("2.0", "4/2")), old[1]]
    write_rows(path, new, Problem)
    assert read_problems(path) == new
    assert [problem.gold for problem in new] == [("2", "2.0", "4/2"), "3"]


def test_a_problem_file_that_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "problems.parquet"
    path.write_text("not parquet")
    with pytest.raises(BadInput, match="not a readable parquet file"):
        read_problems(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  samples: 8", "  sampels: 8", ["unknown parameter 'rollout.sampels'", "did you mean 'samples'?"]),
        ("  samples: 8", "  samples: eight", ["parameter 'rollout.samples'", "eight"]),
        ("iterations: 10", 'iterations: {"1": 0, "2": 0}', ["iteration out of order", "'2': 1", "iterations: 2"]),
        ("iterations: 10", 'iterations: {"1": 0, "3": 2}', ["iteration out of order", "got '3': 2"]),
        ("iterations: 10", "iterations: ten", ["parameter 'iterations'", "integer"]),
        ("seed: 0\niterations", "seed: -1\niterations", ["parameter 'seed'"]),
        ("  dev_size: 16", "  dev_size: 300", ["parameter 'evolve'", "at least 1218"]),
        ("  samples: 4", "  samples: 4\n  pass_k: [1, 5]", ["parameter 'evaluate'", "pass_k"]),
        ("  problems: 48", "  problems: 480", ["rollout.problems=480", "360 problems"]),
        ("\nrollout:", "\nprepare: {ood_lengths: [5, 8]}\nrollout:", ["parameter 'prepare'", "overlap"]),
        ("  problems: 48\n", "", ["parameter 'rollout.problems' is missing"]),
        ("  samples: 8", "  samples: true", ["parameter 'rollout.samples' is a truth value", "Mend: write the number"]),
        ("  temperature: 1.0", "  temperature: .inf", ["parameter 'rollout.temperature'", "finite"]),
        ("seed: 0\niterations", "seed: 0\npolicy: {device: gpu}\niterations", ["'policy.device'", "cuda"]),
        ("evolve:\n", "evolve:\n  search: online\n  online: {reads: stranger}\n", ["prepare.type microworld", "own"]),
    ],
)
def test_params(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    text = (REPOSITORY / "params.yaml").read_text()
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput) as refusal:
        load_experiment(path)
    assert str(path) in str(refusal.value)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_the_line_of_a_wrong_parameter_is_named(tmp_path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text().replace("  samples: 8", "  sampels: 8")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    line = next(n for n, content in enumerate(text.splitlines(), start=1) if "sampels" in content)
    with pytest.raises(BadInput, match=f"params.yaml: line {line}: unknown parameter"):
        load_experiment(path)


def test_yaml_that_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: [1,\n")
    with pytest.raises(BadInput, match="line 2"):
        load_experiment(path)


def test_params_in_another_encoding(tmp_path: Path) -> None:
    path, text = tmp_path / "params.yaml", (REPOSITORY / "params.yaml").read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert load_experiment(path).experiment
    path.write_text(f"# ein Weg zurück\n{text}", encoding="latin-1")
    with pytest.raises(BadInput, match=r"params.yaml: line 1: no UTF-8 text.*Mend"):
        load_experiment(path)


def refused(workspace: Workspace, command: str) -> str:
    done = workspace.sh(command, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Mend" in done.stderr
    return done.stderr


def test_the_console_refuses_before_any_work(fresh: Callable[[], Workspace]) -> None:
    workspace = fresh()
    before = sorted(workspace.root.rglob("*"))
    assert "no stage 'rolout'" in refused(workspace, "p2o stage rolout")
    assert "iteration 9 was asked for" in refused(workspace, "p2o stage rollout --iteration 9")
    assert "no such input" in refused(workspace, "p2o stage rollout --iteration 2")
    assert "no arm 'pso'" in refused(workspace, "p2o run --arm pso")
    assert "5 were asked for" in refused(workspace, "p2o run --iterations 5")
    assert "unknown parameter 'rollout.sample'" in refused(workspace, "p2o run --set rollout.sample=2")
    workspace.edit("params.yaml", "near_hard: true", "near_hrad: true")
    assert "did you mean 'near_hard'?" in refused(workspace, "p2o run")
    left = sorted(path for path in workspace.root.rglob("*") if path.name != WORKSPACE_LOCK)
    assert left == before, "nothing was written but the empty file of the lock, which stays"


FILES = "{type: files, train: train.jsonl, heldout: heldout.jsonl, phrases: phrases.json, policy: policy}"
ROW = {"id": "a", "question": "1+1", "answer": "2", "difficulty": "easy"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.jsonl", None, "train.jsonl: no such file"),
        ("train.jsonl", "{}", "train.jsonl: column 'question' for question is missing"),
        ("train.jsonl", json.dumps(ROW) + "\n{", "train.jsonl: line 2:"),
        ("heldout.jsonl", json.dumps(ROW) + "\n" + json.dumps(ROW), "row 2: id 'a' was used before in row 1"),
        ("heldout.jsonl", json.dumps(ROW | {"answer": ""}), "row 1 (id 'a'): field 'answer' is empty"),
        ("phrases.json", '["one"]', "no pool of phrases"),
        ("phrases.json", '["one", "two", null]', "phrases.json: row 3: 'None' is no sentence"),
        ("phrases.json", '["one", " "]', "phrases.json: row 2: ' ' is no sentence"),
        ("phrases.json", '["one", "\\ud800"]', "phrases.json: row 2: column 'phrase' holds half a character"),
        ("phrases.json", '["one",', "phrases.json: line 1:"),
        ("phrases.json", '{"one": "two"}', "no pool of phrases"),
        ("phrases.json", '["L\udcf6se", "b"]', "phrases.json: line 1: no UTF-8"),
        ("train.jsonl", json.dumps(ROW) + "\nnull", "train.jsonl: line 2: null is no JSON object"),
        ("train.jsonl", json.dumps(ROW | {"answer": ["2", "3"]}), "train.jsonl: row 1: column 'answer' is a list"),
        ("heldout.jsonl", json.dumps(ROW) + '\n{"question": "L\udcf6se", "answer": "1"}', "line 2: no UTF-8"),
        ("train.jsonl", json.dumps(ROW), "'rollout.problems' is 24"),
        ("policy", None, "no Hugging Face model folder"),
    ],
)
def test_files_of_the_user(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    layout = Layout(tmp_path, "tiny")
    layout.sources.mkdir(parents=True)
    rows = {
        split: "\n".join(json.dumps(ROW | {"id": str(index), "question": f"{base + index}+1"}) for index in range(24))
        for split, base in (("train", 0), ("heldout", 100))
    }
    good = {"train.jsonl": rows["train"], "heldout.jsonl": rows["heldout"], "phrases.json": '["one", "two"]'}
    for file, text in (good | {name: content}).items():
        if text is not None:
            (layout.sources / file).write_bytes(text.encode(errors="surrogateescape"))
    params = yaml.safe_load(Path(__file__).with_name("params.yaml").read_text())
    layout.params.write_text(yaml.safe_dump(params | {"prepare": yaml.safe_load(FILES)}))
    with pytest.raises(BadInput, match=re.escape(words)) as refusal:
        run_stage(STAGES["prepare"], load_experiment(layout.params), layout, 0, Runtime())
    assert "Mend" in str(refusal.value)
    assert {path.name for path in layout.sources.parent.iterdir()} == {"sources"}, "nothing is left"


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap"])
def test_a_damaged_artefact_is_refused_with_both_digests(copy: Workspace, damage: str) -> None:
    path = copy.run / "1" / "rollouts.parquet"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        content = content[:-100]
    else:
        content = bytearray((copy.run / "2" / "rollouts.parquet").read_bytes())
    path.unlink()
    path.write_bytes(content)
    before = (copy.run / "1" / "verdicts.parquet").read_bytes()
    expected = json.loads((copy.run / "1" / "rollout.manifest.json").read_text())["outputs"][
        "data/runs/tiny/1/rollouts.parquet"
    ]
    message = refused(copy, "p2o stage verify --iteration 1")
    assert str(path) in message
    assert expected in message
    assert (copy.run / "1" / "verdicts.parquet").read_bytes() == before, "nothing was touched"


def test_a_parameter_that_is_set_twice(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((REPOSITORY / "params.yaml").read_text() + "\nseed: 3\n")
    lines = len(path.read_text().splitlines())
    with pytest.raises(BadInput, match=rf"line {lines}: parameter 'seed' was set before in line 4.*Mend"):
        load_experiment(path)


def test_an_artefact_of_another_schema_is_refused(copy: Workspace) -> None:
    copy.edit("data/runs/tiny/1/rollout.manifest.json", f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99')
    said = refused(copy, "p2o stage verify --iteration 1")
    assert "field 'schema_version' is 99" in said
    assert "--no-run-cache" in said, "DVC's would bring it back"


@pytest.mark.parametrize(
    ("old", "new", "option", "words"),
    [
        ("arms: [p2o, grpo]", "arms: [p2o, nosuch]", "", ["recipes/arms.yaml", "no arm 'nosuch'", "one of p2o, grpo"]),
        ("seeds: 1", "seeds: 0", "", ["recipes/comparisons.yaml", "field 'seeds'", "greater than 0"]),
        ("evolve.racing: true", "evolve.racng: true", "", ["for p2o-s0", "'evolve.racng'", "Mend"]),
        ("max_iterations: 3", "max_iterations: 3\n  budget: 3", "", ["field 'budget'", "Extra inputs"]),
        ("", "", "--recipe other", ["recipes/comparisons.yaml", "no comparison 'other'", "one of microworld"]),
        ("", "", "--iterations 0", ["field 'max_iterations'", "greater than 0"]),
    ],
)
def test_comparisons(fresh: Callable[[], Workspace], old: str, new: str, option: str, words: list[str]) -> None:
    workspace = fresh()
    if old:
        workspace.edit("recipes/comparisons.yaml", old, new)
    refused = workspace.sh(f"p2o compare {option}", check=False)
    assert refused.returncode == 2, refused.stderr
    assert all(word in refused.stderr for word in words), refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (workspace.root / "experiments").exists(), "nothing was written"
