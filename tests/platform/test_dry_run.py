"""``p2o doctor``: the paper's recipes, one complete iteration each with a random tiny Qwen3 in place of the weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.platform.workspace import Workspace


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("qwen3-4b-deepmath", "--arm grpo"),  # without its search of 11,040 calls: minutes
        pytest.param("qwen3-4b-deepmath", "", marks=pytest.mark.slow),
        pytest.param("qwen3-4b-deepscaler", "", marks=pytest.mark.slow),
        pytest.param("qwen3-4b-deepmath", "--arm p2o-lora", marks=pytest.mark.slow),
        pytest.param("qwen3-4b-deepscaler", "--arm p2o-lora", marks=pytest.mark.slow),
        pytest.param("qwen3-0.6b-gsm8k", "", marks=pytest.mark.slow),
    ],
)
def test_dry_run(fresh: Callable[[], Workspace], recipe: str, options: str) -> None:
    """Batches, mini-batches, masks and the search's whole budget are the recipe's own."""
    workspace = fresh()
    shown = workspace.sh(f"p2o doctor --recipe {recipe} {options} --dry-run", timeout=850).stdout
    facts = dict(re.findall(r"│ ([\w ]+?) +│ (.+?) +│", shown))
    if recipe.startswith("qwen3-4b"):
        assert facts["rollouts"] == "768 completions of 128 problems"
        assert "mini-batches of 64" in facts["update"]
    if recipe.startswith("qwen3-4b") and "grpo" not in options:
        assert "(gate 100)" in facts["hard set"]
        assert facts["search"].startswith("searched")
        calls = int(re.findall(r"([\d,]+) metric calls of 11,040", facts["search"])[0].replace(",", ""))
        assert calls >= 11_040
    groups = int(facts["groups with signal"].split()[0])
    size = int(re.findall(r"mini-batches of (\d+)", facts["update"])[0])
    planned = -(-groups // size)
    assert planned > 0
    sharded = recipe.startswith("qwen3-4b") and "lora" not in options
    assert facts["update"].endswith(", by 2 processes") == sharded, "full weights of 4 B parameters go in shards"
    assert facts["update"].startswith(f"updated, {planned} of {planned} optimiser steps planned")
    assert not (workspace.root / "data" / "runs").exists(), "nothing is left behind"
