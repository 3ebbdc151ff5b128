"""``p2o promote``: the real policies measured by the real engine, the answer in MLflow's registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file, save_file

from flows.comparison.gate import read_rewards
from flows.tracking.contest import compared, deliver
from flows.tracking.models import CANDIDATE, CHAMPION, aliased
from flows.tracking.tracker import Tracker
from p2o_core.config import EvaluateConfig
from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_record, write_record
from tasks.benchmarks import evaluated_in
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tasks.running.manifests import Manifest
from tasks.running.runtime import Runtime
from tests.conftest import BIN
from tests.loopback import free_port
from tests.platform.home import until
from tests.platform.workspace import Workspace, environment


def measured(
    who: str, experiment: Experiment, layout: Layout, at: int, settings: EvaluateConfig
) -> dict[str, list[float]]:
    with Runtime() as runtime:
        return read_rewards(evaluated_in(experiment, layout, at, [], settings, runtime))


def opened(workspace: Workspace) -> tuple[Experiment, Layout]:
    experiment = load_experiment(workspace.root / "params.yaml")
    return experiment, Layout(workspace.root, experiment.experiment)


def with_noise(workspace: Workspace, root: Path) -> Workspace:
    """A copy whose last policy knows nothing: its weights are noise, and its manifest says so."""
    shutil.copytree(workspace.root, root, symlinks=True)
    weights = root / "data/runs/tiny/2/policy/model.safetensors"
    noise = np.random.default_rng(0)
    tensors = {name: noise.normal(0, 0.02, t.shape).astype(t.dtype) for name, t in load_file(weights).items()}
    weights.unlink()  # it may be a link into DVC's cache
    save_file(tensors, weights, {"format": "pt"})
    path = root / "data/runs/tiny/2/distill.manifest.json"
    manifest = read_record(path, Manifest)
    outputs = dict(manifest.outputs) | {"data/runs/tiny/2/policy": digest(weights.parent)}
    write_record(path, Manifest(**{**vars(manifest), "outputs": outputs}))
    return Workspace(root, workspace.settings)


def contest(workspace: Workspace, champion: bool) -> str:
    """What the flow does between its lock and its words. Returns the verdict."""
    experiment, layout = opened(workspace)
    delivery, version = Tracker(experiment, layout, patient=True).register(2)
    assert version is not None, str(delivery)
    client = MlflowClient()
    opponent = aliased(client, "tests", CHAMPION)
    assert (opponent is not None) == champion
    promotion = compared(experiment, layout, 2, version, opponent, experiment.evaluate, measured)
    deliver(client, version, promotion)
    tags = client.get_model_version("tests", version.version).tags
    assert tags["p2o.promotion"] == promotion.verdict
    assert f"{promotion.measures['all'].difference:+.4f}" in tags["p2o.promotion.all"]
    kept = [json.loads(path.read_text())["verdict"] for path in (layout.evaluations / "2").glob("promotion-*.json")]
    assert promotion.verdict in kept
    return promotion.verdict


def test_a_better_one_becomes_champion_and_a_worse_one_does_not(
    copy: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{copy.root / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client, noise = MlflowClient(store), with_noise(copy, tmp_path / "noise")
    assert contest(noise, champion=False) == "worse", "noise does not beat the base it came from"
    assert aliased(client, "tests", CHAMPION) is None
    noisy = aliased(client, "tests", CANDIDATE)
    assert noisy is not None
    client.set_registered_model_alias("tests", CHAMPION, noisy.version)
    assert contest(copy, champion=True) == "better"
    champion = aliased(client, "tests", CHAMPION)
    assert champion is not None
    assert champion.tags["p2o.workspace"] == str(copy.root)
    assert contest(noise, champion=True) == "worse"
    kept = aliased(client, "tests", CHAMPION)
    assert kept is not None
    assert kept.version == champion.version
    assert len(client.search_model_versions("name = 'tests'")) == 2, "no version twice"

    served = mlflow.pyfunc.load_model(f"models:/tests/{champion.version}")
    question = "sum 3 a +5 ?"
    answers = served.predict(pd.DataFrame({"question": [question, question]}))
    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)

    measured_again = noise.sh(f"MLFLOW_TRACKING_URI={store} p2o evaluate --champion --set samples=3")
    assert "tiny after iteration 2" in measured_again.stdout
    assert list((copy.root / "data/evaluations").rglob("*.json")), "where the champion was trained"
    done = noise.sh(f"MLFLOW_TRACKING_URI={store} p2o promote", check=False)
    assert done.returncode == 3
    assert "is not promoted. worse: " in done.stderr

    weights = copy.root / "data/runs/tiny/2/policy/model.safetensors"
    weights.unlink()
    experiment, layout = opened(noise)
    with pytest.raises(BadInput, match="not the champion's policy any more"):
        compared(experiment, layout, 2, noisy, kept, experiment.evaluate, measured)


@pytest.mark.slow
def test_mlflow_serves_it(copy: Workspace) -> None:
    """`mlflow models serve` as docs/how-to.md has it, asked over HTTP."""
    copy.sh("p2o promote --candidate")
    port = free_port()
    command = [BIN / "mlflow", "models", "serve", "--model-uri", f"models:/tests@{CANDIDATE}", "--port", str(port)]
    settings = environment() | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    asked = json.dumps({"dataframe_records": [{"question": "sum 3 a +5 ?"}] * 2}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", asked, {"Content-Type": "application/json"}
    )
    with (copy.root / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local"],
            cwd=copy.root,
            env=settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        answers = until(lambda: answered(request), "mlflow models serve does not answer")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert len(answers["predictions"]) == 2
    assert all(isinstance(answer, str) for answer in answers["predictions"])


def answered(request: urllib.request.Request) -> Any:
    """None: nobody listens yet."""
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
    except OSError:
        return None
