"""Bytes are hashed once: a process that asks for the state of a whole experiment reads each file a single time."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2o_core import digests
from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES, plan
from tasks.running.layout import Layout
from tasks.running.plan import Outcome, run_plan
from tasks.running.runner import is_fresh
from tasks.running.runtime import Runtime
from tests.platform.workspace import Workspace


def test_a_process_hashes_each_file_once(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages depend on one another's files, weights among them: three looks at every stage are one reading."""
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return digests_read(path)

    digests_read = digests.read_digest
    monkeypatch.setattr(digests, "read_digest", counted)
    monkeypatch.setattr(digests, "_known", {})
    experiment = load_experiment(trained.root / "params.yaml")
    layout = Layout(trained.root, experiment.experiment)
    with Runtime() as runtime:
        steps = list(run_plan(plan(experiment.iterations), experiment, layout, runtime))
    assert {step.outcome for step in steps} == {Outcome.FINISHED}
    for iteration in range(1, experiment.iterations + 1):
        assert is_fresh(STAGES["distill"], experiment, layout, iteration)
    identities = [(path.stat().st_dev, path.stat().st_ino) for path in read]
    assert len(identities) == len(set(identities)) > 20
