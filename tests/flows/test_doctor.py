"""The doctor's probes of endpoints, against real ones on loopback; and what the tools themselves say of telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import TELEMETRY_OFF
from flows.preflight.doctor import Health, _probe
from flows.preflight.shapes import shape_of, trainer_memory
from tasks.parameters.experiment import load_experiment
from tasks.running.layout import Layout
from tests.loopback import Reply, Request, free_port, served

REPOSITORY = Path(__file__).parents[2]


def secured(request: Request) -> Reply:
    return Reply(200 if request.headers.get("Authorization") == "Bearer right" else 401)


@pytest.mark.parametrize(
    ("key", "health", "found"),
    [
        ("right", Health.OK, "answers (200)"),
        ("wrong", Health.FAILED, "answers with status 401"),
        ("", Health.FAILED, "answers with status 401"),
        ("no header\nholds this", Health.FAILED, "Error"),
    ],
)
def test_an_endpoint_that_wants_a_key(key: str, health: Health, found: str) -> None:
    with served(secured) as url:
        check = _probe("teacher", f"{url}/models", key, "correct the key")
    assert (check.health, check.mend) == (health, "" if health is Health.OK else "correct the key")
    assert found in check.found
    assert "holds this" not in check.found, "a key is never printed"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/health", "http://[nonsense", "nonsense"])
def test_an_endpoint_that_is_not_there(url: str) -> None:
    url = url.format(port=free_port())
    check = _probe("server", url, "", "start it")
    assert (check.health, check.mend) == (Health.FAILED, "start it")


def test_the_tools_send_nothing_unless_the_user_wants_it() -> None:
    """MLflow's and DVC's own answers, in a process that imports ``flows`` first as all of ours do."""
    asks = (
        "import flows, os; from mlflow.telemetry.utils import is_telemetry_disabled; from dvc import analytics;"
        "print(is_telemetry_disabled(), analytics.is_enabled(), os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}
    done = subprocess.run(
        [sys.executable, "-c", asks],
        env=inherited | {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-3:] == ["True", "False", "true"]


def test_the_paper_s_full_fine_tuning_fits_eight_cards_and_not_one() -> None:
    """Of 80 GB each, Qwen3-4B in float32 with AdamW: shards, and whole the layer at hand and the embedding."""
    eight = load_experiment(REPOSITORY / "recipes" / "qwen3-4b-deepmath.yaml")
    shape = shape_of(eight, Layout(REPOSITORY, eight.experiment))
    assert shape is not None
    assert eight.policy.processes == 8
    alone = eight.model_copy(update={"policy": eight.policy.model_copy(update={"processes": 1})})
    assert trainer_memory(eight, shape).total < 80e9 < trainer_memory(alone, shape).total


def test_the_logits_of_a_micro_batch_are_never_all_there() -> None:
    """They are chunks of fixed size (p2o_core/output_layer.py), however long the micro-batch."""
    eight = load_experiment(REPOSITORY / "recipes" / "qwen3-4b-deepmath.yaml")
    shape = shape_of(eight, Layout(REPOSITORY, eight.experiment))
    assert shape is not None
    double = eight.distill.model_copy(update={"tokens_per_microbatch": 2 * eight.distill.tokens_per_microbatch})
    one, two = (trainer_memory(e, shape).parts for e in (eight, eight.model_copy(update={"distill": double})))
    assert one["logits"] == two["logits"] < 2 * 2**30 < eight.distill.tokens_per_microbatch * shape.vocabulary * 4
    assert two["activations"] == 2 * one["activations"]


def test_no_stage_depends_on_the_number_of_processes() -> None:
    one = load_experiment(REPOSITORY / "params.yaml")
    two = one.model_copy(update={"policy": one.policy.model_copy(update={"processes": 2})})
    other = one.model_copy(update={"policy": one.policy.model_copy(update={"attention": "eager"})})
    assert (two.digest(), two.digest_of(["policy"])) == (one.digest(), one.digest_of(["policy"]))
    assert other.digest_of(["policy"]) != one.digest_of(["policy"])
