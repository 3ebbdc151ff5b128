"""Base policies that users bring, through the console: refused with status 2 before anything is paid for; one that
gives no numbers later stops the run with status 3 and keeps its rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tasks.parameters.experiment import load_experiment
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime
from tasks.running.stage import TrainingStopped
from tests.platform.workspace import Workspace
from tests.policies import REFUSED, UP, edit_weights

FILES = {"type": "files", "train": "train.jsonl", "heldout": "heldout.jsonl", "policy": "policy"}
PARAMS = Path(__file__).with_name("params.yaml")


def bring(root: Path, policy: Path) -> Path:
    """Problems, a copy of a policy and the params.yaml that names them; returns the copy."""
    sources = root / "data" / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    for split, first in (("train", 0), ("heldout", 100)):
        rows = [{"question": f"sum {first + n} a+5 ?", "answer": str(first + n + 5)} for n in range(24)]
        (sources / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    params = yaml.safe_load(PARAMS.read_text()) | {"prepare": FILES}
    params["evolve"]["reflector"] = {"type": "self"}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return Path(shutil.copytree(policy, sources / "policy"))


def overflow(folder: Path) -> None:
    """Weights that are numbers, and logits that are none: what a step too far leaves."""
    edit_weights(folder, lambda weights: weights[UP].fill_(1e38))


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("NaN", "p2o run"),
        ("no end-of-sequence token", "p2o doctor"),
        pytest.param("NaN", "p2o doctor", marks=pytest.mark.slow),
        pytest.param("no end-of-sequence token", "p2o run", marks=pytest.mark.slow),
    ],
)
def test_refused_before_anything_is_paid_for(
    fresh: Callable[[], Workspace], base_folder: Path, kind: str, command: str
) -> None:
    workspace = fresh()
    change, words = REFUSED[kind]
    change(bring(workspace.root, base_folder))
    done = workspace.sh(command, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.replace("\n", "") for word in (*words, "Mend"))
    assert not list(workspace.root.glob("data/base/*")), "nothing was written"


def test_a_policy_without_numbers_stops_the_run(fresh: Callable[[], Workspace], base_folder: Path) -> None:
    workspace = fresh()
    overflow(bring(workspace.root, base_folder))
    stopped = workspace.sh("p2o run", check=False)
    assert stopped.returncode == 3, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr.splitlines()[-1]
    rows = pq.read_table(workspace.root / "data/rejected/tiny/0/evaluate.parquet").to_pylist()
    assert rows[0]["problem_id"] in stopped.stderr
    assert "Mend" in stopped.stderr


def test_no_numbers_are_no_hard_problems(tmp_path: Path, base_folder: Path) -> None:
    """The rollout stage ends itself; neither rollouts nor a hard set come of it."""
    overflow(bring(tmp_path, base_folder))
    layout = Layout(tmp_path, "tiny")
    experiment = load_experiment(layout.params)
    with Runtime() as runtime:
        for name, iteration in (("prepare", 0), ("init", 0)):
            run_stage(STAGES[name], experiment, layout, iteration, runtime)
        with pytest.raises(TrainingStopped, match=r"iteration 1, rollout: log-probs of \d+ .* Mend: "):
            run_stage(STAGES["rollout"], experiment, layout, 1, runtime)
    kept = pq.read_table(layout.rejected(1).with_name("rollout.parquet")).to_pylist()
    assert {row["problem_id"] for row in kept}
    assert not (layout.iteration(1) / "rollouts.parquet").exists()
    assert not list(layout.units(1, "rollout").glob("*completions*")), "nothing to be recalled after a restart"
