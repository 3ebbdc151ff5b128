"""The library by itself: ``p2o_iteration`` without the platform, and the example that shows it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_iteration.py"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import p2o_core", ["torch", "transformers", "gepa", "prefect", "mlflow", "dvc"]),
        ("from p2o_core import p2o_iteration", ["prefect", "mlflow", "dvc", "tasks", "flows"]),
    ],
)
def test_the_library_comes_without_the_platform(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import p2o_core

    assert callable(p2o_core.p2o_iteration)
    with pytest.raises(AttributeError, match="no attribute 'p2o'"):
        _ = p2o_core.p2o


def test_the_example_rescues_hard_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """Hard problems are found, a template solves some of them, and the update gets a signal that the bare completions
    do not have."""
    done = runpy.run_path(str(EXAMPLE))["main"]()
    hard = {sample.problem_id for sample in done.hard if not sample.near}
    bare, templated = done.verdicts[: len(done.bare)], done.verdicts[len(done.bare) :]
    assert len(hard) >= 6
    assert not any(verdict.reward for verdict in bare if verdict.problem_id in hard)
    rescued = {verdict.problem_id for verdict in templated if verdict.reward} & hard
    assert rescued
    with_signal = {g[0].problem_id for g in done.groups if len({sample.reward for sample in g}) > 1}
    assert rescued <= with_signal
    assert done.report.groups_with_signal == len(with_signal)
    assert done.report.steps >= 1
    assert f"hard at the bare prompt: {len(done.hard)} of 24" in capsys.readouterr().out
