"""What Prefect's page asks for when a run is started there, and what it calls the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows.checks import checks
from flows.compare import compare
from flows.evaluate import evaluate, trained_workspace
from flows.nightly import nightly
from flows.parameters import experiment_name
from flows.train import train
from p2o_core.schemas import BadInput

FLOWS = [train, nightly, compare, evaluate, checks]
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("made", FLOWS, ids=lambda made: made.name)
def test_the_form_describes_every_field(made: Flow) -> None:
    schema = parameter_schema(made.fn)
    assert schema.required == []
    for name, field in schema.properties.items():
        assert field["description"], name


def test_the_form_offers_what_there_is() -> None:
    fields = parameter_schema(train.fn).properties
    assert {"microworld", "reflective"} <= set(fields["recipe"]["enum"])
    assert "" in fields["arm"]["enum"]
    assert "grpo" in fields["arm"]["enum"]
    assert "microworld" in parameter_schema(compare.fn).properties["recipe"]["enum"]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"iterations": 0}, {"seed": "many"}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError, match=next(iter(wrong))):
        train.validate_parameters({"workspace": ".", **wrong})


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "microworld · p2o · seed 0"),
        ({"recipe": "reflective", "seed": 3}, "reflective-s3 · p2o · seed 3"),
        ({"arm": "grpo", "seed": 1}, "microworld-grpo-s1 · grpo · seed 1"),
        ({"recipe": "nosuch", "arm": "grpo"}, "recipe nosuch · arm grpo"),
    ],
)
def test_a_run_is_called_by_experiment_arm_and_seed(asked: dict[str, Any], name: str) -> None:
    assert experiment_name({"workspace": str(REPOSITORY), **asked}) == name


def test_only_what_was_trained_is_evaluated() -> None:
    with pytest.raises(BadInput, match=r"microworld-s77 was never trained. Mend: train it"):
        trained_workspace(REPOSITORY, None, None, 77)
