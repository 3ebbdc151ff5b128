"""What the dry run shows of an update: all of its metrics, and why some are not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flows.preflight.dry_run import metric_facts
from p2o_core.update_report import ENGINE_METRICS, IterationUpdate
from tasks.parameters.experiment import Experiment, load_experiment
from tests.platform.workspace import REPOSITORY

UPDATE = IterationUpdate(
    status="updated",
    groups=8,
    groups_with_signal=5,
    rollouts_trained=30,
    planned_steps=1,
    steps=1,
    metrics={"loss": -0.125, "of_my_own": 3.0} | dict.fromkeys(ENGINE_METRICS, 0.5),
    template_ratios=[],
    optimizer_steps=1,
    templated_solve_rate=0.0,
    templated_tokens=0,
    reused=0,
    entropy=0.5,
    skills=None,
)
BARE = {"loss": -0.125}


def experiment(**distill: Any) -> Experiment:
    given = load_experiment(REPOSITORY / "tests" / "platform" / "params.yaml")
    return given.model_copy(update={"distill": given.distill.model_copy(update=distill)})


def test_every_metric_is_shown() -> None:
    shown = metric_facts(experiment(), UPDATE)
    assert shown == {"loss": "-0.125", "of_my_own": "3"} | dict.fromkeys(ENGINE_METRICS, "0.5")


@pytest.mark.parametrize(
    ("update", "distill", "what", "why"),
    [
        (replace(UPDATE, status="off", steps=0, metrics={}), {}, "metrics", "distillation is off"),
        (replace(UPDATE, status="no_signal", steps=0, metrics={}), {}, "metrics", "no group carried a signal"),
        (replace(UPDATE, metrics=BARE), {"engine_ratio": "off"}, "engine metrics", "distill.engine_ratio is off"),
        (replace(UPDATE, metrics=BARE), {"engine_ratio": "truncated"}, "engine metrics", "no completion was compared"),
    ],
)
def test_what_is_missing_says_why(update: IterationUpdate, distill: dict[str, str], what: str, why: str) -> None:
    shown = metric_facts(experiment(**distill), update)
    assert shown.keys() == {*update.metrics, what}
    assert why in shown[what]
