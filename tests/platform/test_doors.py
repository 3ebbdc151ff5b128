"""Three front doors, one truth."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.versioning.pipeline import PARAMETERS
from p2o_core.schemas import read_problems
from tests.clock import PATIENCE_S
from tests.platform.workspace import Workspace, environment


def digests(workspace: Workspace) -> dict[str, str]:
    """Workspace-relative path to sha256, over every manifest."""
    found: dict[str, str] = {}
    for manifest in sorted((workspace.root / "data").rglob("*.manifest.json")):
        found |= json.loads(manifest.read_text())["outputs"]
    return found


def test_prefect_and_dvc_make_the_same_bytes(trained: Workspace, reproduced: Workspace) -> None:
    one, other = digests(trained), digests(reproduced)
    assert len(one) == 7 + 8 + 3 + 2 * 17 + 2
    assert one == other


def test_after_one_door_the_other_does_nothing(copy: Workspace, reproduced: Workspace) -> None:
    for workspace in (copy, reproduced):
        assert "up to date" in workspace.sh("dvc status").stdout
    assert "up to date" in copy.sh("dvc repro").stdout
    lines = reproduced.sh("p2o run").stdout.splitlines()
    assert [line for line in lines if line.startswith(("rollout@1", "distill@2", "summary"))] == [
        "rollout@1: up to date",
        "distill@2: up to date",
        "summary: up to date",
    ]
    assert not [line for line in lines if line.endswith(" s") and "@" in line]


@pytest.mark.slow
def test_an_evaluation_parameter_reruns_evaluation_only(copy: Workspace) -> None:
    copy.sh("git add -A && git -c user.email=t@t -c user.name=t commit -qm run")
    copy.edit("params.yaml", "evaluate: {samples: 2", "evaluate: {samples: 3")
    assert set(json.loads(copy.sh("dvc status --json").stdout)) == {PARAMETERS}
    copy.sh("dvc repro parameters")
    status = json.loads(copy.sh("dvc status --json").stdout)
    assert {name.split("@")[0] for name in status} == {"baseline", "evaluate"}
    before = digests(copy)
    copy.sh("dvc repro")
    changed = {path for path, digest in digests(copy).items() if before[path] != digest}
    names = {Path(path).name for path in changed}
    assert names == {"predictions.parquet", "judgements.parquet", "metrics.json", "curves.csv", "summary.json"}
    assert "mean_tokens" in copy.sh("dvc metrics diff").stdout


def test_dvc_shows_metrics_and_plots(copy: Workspace) -> None:
    table = copy.sh("dvc metrics show --md").stdout
    assert "data/runs/tiny/2/metrics.json" in table
    assert "accuracy.hard" in table
    page = Path(copy.sh("dvc plots show").stdout.strip().removeprefix("file://"))
    assert "accuracy/mean" in page.read_text()


def client(workspace: Workspace) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")


def runs(client: MlflowClient, parent: str | None) -> list[Run]:
    everywhere = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(everywhere)
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]


@pytest.mark.parametrize("door", ["trained", "reproduced"])
def test_mlflow_has_the_experiment_once(door: str, request: pytest.FixtureRequest) -> None:
    workspace: Workspace = request.getfixturevalue(door)
    mlflow = client(workspace)
    (parent,) = runs(mlflow, None)
    assert parent.data.params["rollout.samples"] == "6"
    assert parent.data.tags["p2o.arm"] == "p2o"
    assert parent.info.status == "FINISHED"
    children = sorted(runs(mlflow, parent.info.run_id), key=lambda run: int(run.data.tags["p2o.iteration"]))
    assert [run.data.tags["p2o.iteration"] for run in children] == ["0", "1", "2"]
    steps = [point.step for point in mlflow.get_metric_history(parent.info.run_id, "accuracy/hard")]
    assert steps == [0, 1, 2]
    for iteration, child in enumerate(children):
        metrics = json.loads((workspace.run / str(iteration) / "metrics.json").read_text())
        assert child.data.metrics["accuracy/hard"] == metrics["accuracy"]["hard"]
        datasets = {entry.dataset.name: entry.dataset.digest for entry in child.inputs.dataset_inputs}
        manifest = json.loads((workspace.root / "data/base/prepare.manifest.json").read_text())
        assert datasets["train.parquet"] == manifest["outputs"]["data/base/train.parquet"][:32]
    assert {a.path for a in mlflow.list_artifacts(children[1].info.run_id)} >= {"templates.json", "metrics.json"}
    assert children[1].data.metrics["tokens/gepa"] > 0
    assert children[1].data.metrics["seconds/evolve"] > 0


def test_mlflow_project_becomes_the_parent(copy: Workspace) -> None:
    """``mlflow run`` on an empty store: its run is the experiment's parent; a second one is nested under it."""
    (copy.root / "mlflow.db").unlink()
    command = "mlflow run . -e train -P iterations=1 --env-manager local"
    copy.sh(command)
    mlflow = client(copy)
    (parent,) = runs(mlflow, None)
    assert parent.data.params["iterations"] == "1"
    assert parent.data.params["rollout.samples"] == "6"
    assert {r.data.tags.get("p2o.iteration") for r in runs(mlflow, parent.info.run_id)} >= {"0", "1"}
    copy.sh(command)
    (same,) = runs(mlflow, None)
    assert same.info.run_id == parent.info.run_id
    nested = [run for run in runs(mlflow, parent.info.run_id) if "p2o.iteration" not in run.data.tags]
    assert [run.data.params["iterations"] for run in nested] == ["1"]


def test_mlflow_project_evaluates(copy: Workspace) -> None:
    before = digests(copy)
    copy.sh("mlflow run . -e evaluate -P iteration=1 --env-manager local")
    after = digests(copy)
    assert after.items() > before.items(), "the stages' artefacts are as they were, the evaluation's are beside them"
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == {"evaluations"}


def test_prefect_keeps_an_artefact_an_iteration(trained: Workspace) -> None:
    with sqlite3.connect(trained.root / ".prefect" / "prefect.db") as database:
        rows = dict(database.execute("select key, data from artifact where key is not null").fetchall())
        states = database.execute("select name, state_name from flow_run").fetchall()
    assert {"tiny-iteration-0", "tiny-iteration-1", "tiny-iteration-2"} <= set(rows)
    shown = json.loads(rows["tiny-iteration-1"])
    for heading in ("Iteration 1: ", "## What was hard", "## Best template", "| hard |", "## Look on", "p2o report"):
        assert heading in shown
    assert [state for _, state in states] == ["Completed"]


def test_killed_and_started_again_ends_in_the_same_bytes(trained: Workspace, copy: Workspace) -> None:
    """kill -9 of the whole process group in iteration 2, then the same command again."""
    copy.sh("rm -r data/runs/tiny/2 data/reports")
    command = "exec p2o run --no-run-cache"
    with (copy.root / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, shell=True, cwd=copy.root, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE_S
        while not (copy.run / "2" / "mine.manifest.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (copy.run / "2" / "distill.manifest.json").exists()
    log_after = copy.sh("p2o run --no-run-cache").stdout
    assert "rollout@1: up to date" in log_after
    assert digests(copy) == digests(trained)
    assert "up to date" in copy.sh("dvc status").stdout


def test_another_arm_gets_a_workspace_of_its_own(copy: Workspace) -> None:
    params = (copy.root / "params.yaml").read_text()
    output = copy.sh("p2o run --arm grpo --iterations 1").stdout
    assert "prepare: restored from DVC's run cache" in output
    assert (copy.root / "params.yaml").read_text() == params
    derived = copy.root / "experiments" / "tiny-grpo"
    settings = yaml.safe_load((derived / "params.yaml").read_text())
    assert (settings["arm"], settings["evolve"]["enabled"], settings["experiment"]) == ("grpo", False, "tiny-grpo")
    templates = json.loads((derived / "data/runs/tiny-grpo/1/templates.json").read_text())
    assert templates["status"] == "off"
    own = json.loads((derived / "data/base/prepare.manifest.json").read_text())
    assert own["outputs"] == json.loads((copy.root / "data/base/prepare.manifest.json").read_text())["outputs"]
    arms = {run.data.tags.get("p2o.arm") for run in runs(client(copy), None)}
    assert arms == {"p2o", "grpo"}, "both arms are in the one MLflow store"


def test_a_run_without_signal_says_so(copy: Workspace) -> None:
    """Problems far beyond the policy (answers it cannot write), brought as files of one's own."""
    sources = copy.root / "data" / "sources"
    beyond = [asdict(p) | {"answer": "1000"} for p in read_problems(copy.root / "data/base/train.parquet")]
    (sources / "train.jsonl").write_text("\n".join(map(json.dumps, beyond)))
    for name in ("heldout.parquet", "phrases.json"):
        shutil.copyfile(copy.root / "data/base" / name, sources / name)
    shutil.copytree(copy.root / "data/base/policy", sources / "policy")
    files = "{type: files, train: train.jsonl, heldout: heldout.parquet, phrases: phrases.json, policy: policy}"
    output = copy.sh(f"p2o run --arm grpo --iterations 1 --set 'prepare={files}' --set rollout.samples=4").stdout
    assert "NOTHING WAS LEARNT" in output
    assert "every advantage was zero" in output
    (derived,) = (copy.root / "experiments").iterdir()
    before, after = (next(derived.glob(f"data/runs/*/{i}/policy/model.safetensors")) for i in (0, 1))
    assert before.read_bytes() == after.read_bytes(), "the weights are untouched"
