"""What is said about a run that is not well."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flows.health import findings
from p2o_core.config import HealthConfig
from p2o_core.evaluation import solved_before

CONFIG = HealthConfig()


def rows(*last: dict[str, Any], iterations: int = 5) -> list[dict[str, Any]]:
    """A run that is well, and what its last iteration is changed to."""
    made: list[dict[str, Any]] = [{"iteration": 0, "accuracy/easy": 0.95, "accuracy/hard": 0.0, "accuracy/mean": 0.4}]
    for iteration in range(1, iterations + 1):
        made.append(
            {
                "iteration": iteration,
                "accuracy/easy": 0.93,
                "accuracy/hard": 0.1 * iteration,
                "accuracy/mean": 0.4 + 0.01 * iteration,
                "update/gradient_norm": 0.5,
                "update/gradient_norm_max": 0.8,
                "update/entropy": 0.6 - 0.05 * iteration,
                "skills_before": 0.95,
                "skills_after": 0.93,
                "rolled_back": 0,
            }
        )
    for change in last:
        made[-1] |= change
    return made


def test_a_run_that_is_well() -> None:
    for upto in range(1, 7):
        assert findings(rows()[:upto], CONFIG) == []
    assert findings([], CONFIG) == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"update/gradient_norm_max": 6.0}, "gradient_spike", ["12 times the usual 0.5", "learning_rate"]),
        ({"update/entropy": 0.05}, "entropy_collapse", ["0.05 nats", "temperature"]),
        ({"skills_after": 0.5}, "costly_update", ["from 0.95 to 0.50", "kept"]),
        ({"skills_after": 0.5, "rolled_back": 1}, "costly_update", ["taken back"]),
        ({"accuracy/easy": 0.6}, "lost_skills", ["from 0.95 before training to 0.60", "iteration 5"]),
    ],
)
def test_findings(change: dict[str, Any], kind: str, words: list[str]) -> None:
    (finding,) = findings(rows(change), CONFIG)
    assert (finding.kind, finding.iteration) == (kind, 5)
    for word in words:
        assert word in str(finding)


def test_a_first_gradient_is_not_unusual() -> None:
    assert findings(rows({"update/gradient_norm_max": 60.0}, iterations=2), CONFIG) == []


def test_iterations_without_evaluation_or_update_say_nothing() -> None:
    assert findings([*rows(), {"iteration": 6}], CONFIG) == []


def test_what_could_not_be_done_before_is_no_lost_skill() -> None:
    """Hard accuracy may fall: only what was there before training is guarded."""
    assert findings(rows({"accuracy/hard": 0.0}), CONFIG) == []


def test_chosen_by_one_half_measured_by_the_other() -> None:
    rewards = {"a": [1, 1, 0, 1], "b": [0, 1, 1, 1], "c": [0, 0, 1, 1], "d": [1], "e": [1, 1, 0, 0]}
    assert solved_before(rewards, 9) == {"a": 0.5, "b": 1.0, "e": 0.0}
    assert list(solved_before(rewards, 1)) == ["a"]
    assert solved_before(rewards, 0) == {}


def test_rolling_back_needs_something_to_decide_by() -> None:
    with pytest.raises(ValidationError, match="skill_probe"):
        HealthConfig(on_lost_skills="roll_back")
