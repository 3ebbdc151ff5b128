"""``policy.processes``: the stage is the same, whatever their number."""

from __future__ import annotations

import subprocess
import time

import psutil
import torch
from safetensors.torch import load_file

from p2o_core.schemas import read_record
from p2o_core.update_report import IterationUpdate
from tests.platform.workspace import Workspace, environment

DISTILL = "p2o stage distill --iteration 2"


def test_a_stage_killed_with_two_processes_goes_on_with_one(copy: Workspace) -> None:
    """kill -9 between two steps; and nothing that is finished is to be made again for another number."""
    copy.edit("params.yaml", "policy: {type: full}", "policy: {type: full, processes: 2}")
    assert "up to date" in copy.sh("p2o resolve && dvc status").stdout

    copy.edit("params.yaml", "processes: 2", "processes: 1")
    copy.edit("params.yaml", "groups_per_minibatch: 8", "groups_per_minibatch: 2")
    copy.sh(DISTILL)
    before, (undisturbed, report) = load_file(copy.run / "1" / "policy" / "model.safetensors"), ended(copy)
    assert report.steps >= 3

    copy.edit("params.yaml", "processes: 1", "processes: 2")
    kill_after_a_step(copy)
    copy.edit("params.yaml", "processes: 2", "processes: 1")
    copy.sh(DISTILL)
    weights, again = ended(copy)
    assert (again.steps, again.optimizer_steps, again.metrics.keys()) == (
        report.steps,
        report.optimizer_steps,
        report.metrics.keys(),
    )
    for name, weight in weights.items():
        torch.testing.assert_close(weight, undisturbed[name], atol=1e-5, rtol=0)
    assert max(float((weight - before[name]).abs().max()) for name, weight in weights.items()) > 1e-4


def ended(workspace: Workspace) -> tuple[dict[str, torch.Tensor], IterationUpdate]:
    """The weights and the report of iteration 2."""
    folder = workspace.run / "2"
    return load_file(folder / "policy" / "model.safetensors"), read_record(folder / "update.json", IterationUpdate)


def kill_after_a_step(workspace: Workspace) -> None:
    checkpoints = workspace.root / "data" / "units" / "tiny" / "2" / "distill" / "update"
    environ = environment() | dict(workspace.settings)
    with subprocess.Popen(DISTILL.split(), cwd=workspace.root, env=environ) as stage:
        deadline = time.monotonic() + 300
        while not list(checkpoints.glob("step-*")):
            assert stage.poll() is None, "it should not have come to its end"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        below = psutil.Process(stage.pid).children(recursive=True)
        stage.kill()
    assert len(below) >= 3, "torchrun, its two processes and the verifier's"
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == [], "nothing outlives the stage"
    assert list(checkpoints.glob("step-*"))
