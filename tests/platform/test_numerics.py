"""Updates that go wrong: numbers that are none, and skills that are gone."""

from __future__ import annotations

import json
import sqlite3

import pyarrow.parquet as pq
import pytest

from p2o_core.digests import digest
from tests.platform.test_doors import digests
from tests.platform.workspace import Workspace

RATE = "learning_rate: 2.0e-4"
HEALTH = "health: {skill_probe: 8}"


def update(workspace: Workspace) -> dict:
    return json.loads((workspace.run / "2" / "update.json").read_text())


def test_a_healthy_update_was_probed(trained: Workspace) -> None:
    skills = update(trained)["skills"]
    assert 0 < skills["problems"] <= 8
    assert skills["answer"] == "kept"
    assert skills["before"] > 0.7
    assert skills["tokens"] > 0
    assert update(trained)["entropy"] > 0
    curves = (trained.root / "data/reports/tiny/curves.csv").read_text().splitlines()[0]
    assert {"skills_before", "skills_after", "update/entropy", "update/gradient_norm_max"} <= set(curves.split(","))


def test_numbers_that_are_none_stop_the_run(copy: Workspace) -> None:
    """A learning rate so large that the second optimiser step has no finite log-probs."""
    before = digests(copy)
    policy = digest(copy.run / "2" / "policy")
    copy.edit("params.yaml", RATE, "learning_rate: 1.0e+30")
    copy.edit("params.yaml", "groups_per_minibatch: 8", "groups_per_minibatch: 2")
    stopped = copy.sh("p2o run --no-run-cache", check=False)
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    rows = pq.read_table(copy.root / "data/rejected/tiny/1/rollouts.parquet").to_pylist()
    assert rows
    assert rows[0]["problem_id"] in stopped.stderr
    assert "the weights were not changed" in stopped.stderr
    assert "Mend" in stopped.stderr
    assert digest(copy.run / "2" / "policy") == policy
    assert digests(copy) == before, "what was there is there"


@pytest.mark.parametrize("answer", ["roll_back", "stop", "warn"])
def test_an_update_that_costs_skills(copy: Workspace, answer: str) -> None:
    copy.edit("params.yaml", RATE, "learning_rate: 0.05")
    copy.edit("params.yaml", HEALTH, f"health: {{skill_probe: 8, on_lost_skills: {answer}}}")
    policy, started_from = digest(copy.run / "2" / "policy"), digest(copy.run / "1" / "policy")
    done = copy.sh("p2o stage distill --iteration 2", check=False)
    if answer == "stop":
        assert done.returncode == 3
        assert "health.skill_margin" in done.stderr
        assert digest(copy.run / "2" / "policy") == policy
        return
    assert done.returncode == 0, done.stderr[-2000:]
    report = update(copy)
    assert report["skills"]["before"] - report["skills"]["after"] > 0.1
    previous = json.loads((copy.run / "1" / "update.json").read_text())["optimizer_steps"]
    if answer == "roll_back":
        assert report["skills"]["answer"] == "rolled_back"
        assert digest(copy.run / "2" / "policy") == started_from
        assert digest(copy.run / "2" / "optimizer") == digest(copy.run / "1" / "optimizer")
        assert report["optimizer_steps"] == previous
    else:
        assert report["skills"]["answer"] == "warned"
        assert digest(copy.run / "2" / "policy") not in (policy, started_from)
        assert report["optimizer_steps"] > previous


@pytest.mark.slow
def test_warnings_are_seen(copy: Workspace) -> None:
    """In the console and in Prefect's log, with advice; training goes on."""
    copy.edit("params.yaml", RATE, "learning_rate: 0.05")
    copy.sh("rm -r data/runs/tiny/2")
    copy = copy.on_its_own()
    shown = copy.sh("p2o run --no-run-cache").stdout
    assert "iteration 1: accuracy on problems solved before the update went from" in shown.replace("\n", " ")
    assert "Lower distill.learning_rate" in shown.replace("\n", " ")
    with sqlite3.connect(copy.root / ".prefect" / "prefect.db") as database:
        logged = " ".join(message for (message,) in database.execute("select message from log"))
    assert "accuracy on problems solved before the update" in logged
