"""The surroundings that a user's machine may have: proxies, no git, a folder that is no workspace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.compare import ENDINGS, run_process
from flows.comparison.arms import Arm
from flows.lifecycle.environment import LOOPBACK, exempt_loopback
from flows.lifecycle.processes import Processes
from flows.preflight.doctor import Health, _probe
from flows.tracking.parents import git_commit
from flows.versioning.workspace import recipe_file
from p2o_core.schemas import BadInput
from tasks.running.stage import TrainingStopped
from tests.loopback import Reply, served

OURS = ",".join(LOOPBACK)


@pytest.mark.parametrize(
    ("lower", "upper", "exempt"),
    [
        ("", "*", "*"),
        ("*", "", "*"),
        ("a.org, *", "", "*"),
        ("", "", OURS),
        ("a.org", "b.org,localhost", "a.org,b.org,localhost,127.0.0.1,::1"),
        ("a.org", "a.org", f"a.org,{OURS}"),
    ],
)
def test_what_the_user_exempts_stays(lower: str, upper: str, exempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", lower)
    monkeypatch.setenv("NO_PROXY", upper)
    exempt_loopback()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == exempt


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit(tmp_path) == "none"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) == "none"


def test_the_doctor_asks_rollout_servers_as_the_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the proxy, which may not reach them; a teacher is asked through it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with served(lambda request: Reply(200)) as url:
        assert _probe("server", f"{url}/health", "", "", by_proxy=False).health is Health.OK
        assert _probe("teacher", f"{url}/models", "", "").health is Health.FAILED


def test_a_recipe_outside_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"Mend: a path, or a clone of the repository"):
        recipe_file("x", tmp_path)


def test_track_leaves_nothing_in_an_empty_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.console", "track"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such file. Mend" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_ends_as_its_arm(tmp_path: Path) -> None:
    """`p2o arm` in a folder that is no comparison's: status 2, whose message is the comparison's too."""
    with (
        Processes() as processes,
        pytest.raises(BadInput, match=r"p2o-s0: .*comparison.yaml: no comparison.*Mend.*log"),
    ):
        run_process(tmp_path, Arm("p2o", 0), processes)
    assert ENDINGS[3] is TrainingStopped
