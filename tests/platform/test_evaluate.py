"""``p2o evaluate``: benchmarks beside the chain of stages."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from p2o_core.schemas import read_problems
from tests.platform.workspace import Workspace


def measured(workspace: Workspace, iteration: int) -> list[Path]:
    return sorted((workspace.root / "data/evaluations/tiny" / str(iteration)).glob("*/metrics.json"))


def logged(workspace: Workspace, iteration: int) -> tuple[MlflowClient, str, dict[str, float]]:
    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    everywhere = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(everywhere, f"tags.`p2o.iteration` = '{iteration}'")
    return client, run.info.run_id, run.data.metrics


def test_heldout_problems_at_another_k(copy: Workspace) -> None:
    shown = copy.sh("p2o evaluate --iteration 1 --set samples=4 --set 'pass_k=[1, 4]'").stdout
    (path,) = measured(copy, 1)
    metrics = json.loads(path.read_text())
    assert metrics["settings"]["samples"] == 4
    assert pq.read_metadata(path.parent / "predictions.parquet").num_rows == 4 * sum(metrics["problems"].values())
    for name, accuracy in metrics["accuracy"].items():
        assert f"{accuracy:.3f}" in next(line for line in shown.splitlines() if f" {name} " in line)
        assert accuracy <= metrics["pass_at"]["4"][name]
    client, run, values = logged(copy, 1)
    assert values["benchmark/accuracy/easy"] == metrics["accuracy"]["easy"]
    assert {name.split("/")[1] for name in values if name.startswith("benchmark/")} >= {
        *("accuracy", "pass_at_4", "maj_at", "mean", "truncated")
    }

    before = path.stat().st_mtime_ns
    copy.on_its_own().sh("p2o evaluate --iteration 1 --set samples=4 --set 'pass_k=[1, 4]'")
    assert measured(copy, 1) == [path], "the same question is not measured again"
    assert path.stat().st_mtime_ns == before
    assert len(client.get_metric_history(run, "benchmark/accuracy/easy")) == 1, "nor logged again"

    content = {name: (path.parent / name).read_bytes() for name in ("metrics.json", "predictions.parquet")}
    (path.parent / "predictions.parquet").write_bytes(content["predictions.parquet"][:-20])
    path.write_text("{}")
    copy.sh("p2o evaluate --iteration 1 --set samples=4 --set 'pass_k=[1, 4]'")
    assert {name: (path.parent / name).read_bytes() for name in content} == content, "what is damaged is measured again"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        *(".lock", "benchmarks.manifest.json", "judgements.parquet", "metrics.json", "predictions.parquet")
    ]
    assert "benchmarks" not in (copy.root / "data/timings/tiny.json").read_text()
    with sqlite3.connect(copy.root / ".prefect" / "prefect.db") as database:
        keys = {key for (key,) in database.execute("select key from artifact where key is not null")}
    assert "tiny-benchmarks-1" in keys
    assert "up to date" in copy.sh("dvc status").stdout, "evaluations lie beside the chain of stages"


def test_own_file_and_the_last_iteration(copy: Workspace) -> None:
    problems = read_problems(copy.root / "data/base/heldout.parquet")[:6]
    rows = [{"question": p.question, "answer": p.answer} for p in problems]
    (copy.root / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shown = copy.sh("p2o evaluate --benchmark mine.jsonl").stdout
    assert "after iteration 2" in shown
    (path,) = measured(copy, 2)
    assert list(json.loads(path.read_text())["problems"].values()) == [6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--iteration 7", "no policy of iteration 7"),
        ("--benchmark bad.csv", "column 'answer' for answer is missing"),
        pytest.param("--benchmark missing.jsonl", "no such file", marks=pytest.mark.slow),
        pytest.param("--benchmark no-such-benchmark", "no-such-benchmark", marks=pytest.mark.slow),
        pytest.param("--set sample=3", "sample", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_there_is_refused(copy: Workspace, options: str, words: str) -> None:
    (copy.root / "bad.csv").write_text("question,solution\n1+1,2\n")
    done = copy.sh(f"p2o evaluate {options}", check=False)
    assert done.returncode == 2
    assert words in done.stderr, done.stderr[-500:]
    assert "Mend" in done.stderr
    assert not (copy.root / "data/evaluations").exists()
