"""The benchmarks run, and what the documents say of them is what was measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.row import RESULTS, ROWS, load_row
from benchmarks.table import markdown, read_results
from tests.platform.workspace import REPOSITORY, environment

KEYS = {"row", "ratio", "spread", "goal", "reached", "limit_share", "commit", "machine", "versions"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_it_is(name: str) -> None:
    row = load_row(name)
    assert (row.name, bool(row.title), bool(row.goal)) == (name, True, True)
    assert "ours" in row.sides
    assert row.repetitions in (1, 3)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("S*.json")), ids=lambda path: path.stem)
def test_a_result_has_its_keys(path) -> None:
    result = json.loads(path.read_text())
    assert set(result) >= KEYS
    assert result["row"] == path.stem
    assert result["goal"] == load_row(path.stem).goal
    assert result["spread"][0] <= result["ratio"] <= result["spread"][1]


def test_the_documents_have_the_table() -> None:
    text = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert markdown(read_results()) in text, "mend: paste the output of `python -m benchmarks --markdown`"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)


def test_a_row_runs_both_sides_and_compares_them() -> None:
    """The cheapest one, small; equal masks are what its process checks."""
    done = run("benchmarks", "S3", "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S3 · half templated · ours" in done.stdout
    assert "S3 · half templated · theirs" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_gpu_part_says_so() -> None:
    done = run("benchmarks.gpu")
    assert done.returncode == 1
    assert "needs a CUDA card" in done.stdout
