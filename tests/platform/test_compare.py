"""A comparison: killed and started again, tracked, versioned, and reported in a page that a real browser opens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.clock import PATIENCE_S
from tests.platform.test_doors import digests
from tests.platform.workspace import REPOSITORY, Workspace, environment

COMMAND = "p2o compare --recipe microworld --quick --jobs 2"
INJECTED = "<script>document.title = 'injected'</script>"


@pytest.fixture(scope="module")
def compared(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The comparison's workspace, after a kill -9 of everything in the middle and the same command again."""
    root = tmp_path_factory.mktemp("compared") / "clone"
    shutil.copytree(trained.root, root, symlinks=True)
    clone, folder = Workspace(root), root / "experiments" / "compare-microworld-quick"
    shutil.copytree(root / "data" / "base", folder / "data" / "base")  # the same problems and base policy: 40 s saved
    with (root / "killed.log").open("w") as log:
        process = subprocess.Popen(
            f"exec {COMMAND}", shell=True, cwd=root, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE_S
        while not (folder / "data/runs/p2o-s0/1/rollout.manifest.json").exists():
            assert process.poll() is None, (root / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        arms = [child for child in psutil.Process(process.pid).children() if "arm" in child.cmdline()]
        assert {child.cwd() for child in arms} == {str(folder)}, "one folder for all of it: DVC's, all the time"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "report").exists()
    clone.sh(COMMAND)
    return Workspace(folder)


def test_killed_and_started_again_equals_an_arm_in_one_go(compared: Workspace) -> None:
    """The arms run once more, undisturbed, from the same base."""
    again = compared.root.parent / "again"
    for name in ("comparison.yaml", "arms", "dvc.yaml", "data/base", "data/sources"):
        source = compared.root / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, _made(again / name))
    undisturbed = Workspace(again)
    before = (again / "data/base/prepare.manifest.json").read_bytes()
    for arm in ("p2o", "grpo"):
        undisturbed.sh(f"p2o arm {arm} --seed 0")
    assert digests(undisturbed) == digests(compared)
    assert (again / "data/base/prepare.manifest.json").read_bytes() == before, "the base is made once"


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.slow
def test_a_damaged_file_of_a_finished_arm_is_made_again(compared: Workspace) -> None:
    path = compared.root / "data/runs/p2o-s0/1/metrics.json"
    before, content = digests(compared), path.read_text()
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(content.replace("0.", "0.9", 1))
    shown = Workspace(compared.root.parents[1]).sh(COMMAND).stdout
    assert "p2o-s0: " in shown
    assert "grpo-s0: " not in shown
    assert path.read_text() == content
    assert digests(compared) == before
    assert "up to date" in compared.sh("dvc status").stdout


def test_a_finished_comparison_does_nothing(compared: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in (compared.root / "data").rglob("*.manifest.json")}
    output = Workspace(compared.root.parents[1]).sh(COMMAND).stdout
    assert "2 runs, 2 of them done before" in output
    assert before == {path: path.stat().st_mtime_ns for path in (compared.root / "data").rglob("*.manifest.json")}
    assert "up to date" in compared.sh("dvc status").stdout


def test_arms_stop_at_equal_tokens(compared: Workspace) -> None:
    for arm in ("p2o", "grpo"):
        done = json.loads((compared.root / f"data/runs/{arm}-s0/arm.json").read_text())
        last = json.loads((compared.root / f"data/runs/{arm}-s0/{done['iterations']}/metrics.json").read_text())
        assert last["iteration"] == done["iterations"]
        assert done["tokens"] >= 12_000 or done["iterations"] == 3


def test_mlflow_has_curves_by_iteration_and_by_tokens(compared: Workspace) -> None:
    mlflow = MlflowClient(f"sqlite:///{compared.root.parents[1] / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name("p2o-compare")
    assert experiment is not None
    runs = {run.data.tags["p2o.arm"]: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert set(runs) == {"p2o", "grpo"}
    for arm, run in runs.items():
        done = json.loads((compared.root / f"data/runs/{arm}-s0/arm.json").read_text())
        history = mlflow.get_metric_history(run.info.run_id, "accuracy/hard")
        assert [point.step for point in history] == list(range(done["iterations"] + 1))
        aligned = mlflow.get_metric_history(run.info.run_id, "by_tokens/accuracy/hard")
        assert [point.value for point in aligned] == [point.value for point in history]
        assert (aligned[0].step, aligned[-1].step) == (0, done["tokens"])
        assert run.data.tags["p2o.comparison"] == "compare-microworld-quick"
        assert run.info.status == "FINISHED"


def test_claims_are_numbers_and_no_verdict_from_one_seed(compared: Workspace) -> None:
    claims = json.loads((compared.root / "report/claims.json").read_text())
    assert set(claims) == {"V1", "V2", "V3", "V4", "V5", "S9"}
    assert claims["V1"]["seeds"] == 1
    assert not claims["V1"]["reached"]
    assert "not enough for a verdict" in claims["V1"]["verdict"]
    rewards = {
        arm: json.loads((compared.root / f"data/runs/{arm}-s0/{_last_within(compared, arm)}/metrics.json").read_text())[
            "accuracy"
        ]["hard"]
        for arm in ("p2o", "grpo")
    }
    assert claims["V1"]["value"] == pytest.approx(rewards["p2o"] - rewards["grpo"])
    assert claims["V2"]["value"] is None, "grpo-2x is not in this comparison"


def _last_within(compared: Workspace, arm: str) -> int:
    spent, last = 0, 0
    while (update := compared.root / f"data/runs/{arm}-s0/{last + 1}/update.json").exists():
        folder = update.parent
        spent += json.loads(update.read_text())["templated_tokens"]
        spent += json.loads((folder / "templates.json").read_text())["cost"].get("tokens", 0)
        spent += json.loads((folder / "rollout.manifest.json").read_text())["counts"]["tokens"]
        if spent > 12_000:
            break
        last += 1
    return last


def test_the_same_runs_give_the_same_report(compared: Workspace) -> None:
    before = (compared.root / "report/report.html").read_bytes()
    compared.sh("p2o report")
    assert (compared.root / "report/report.html").read_bytes() == before


@pytest.mark.slow
def test_searches_are_measured_again(compared: Workspace) -> None:
    """The benchmark runs on what a comparison leaves behind."""
    command = f"python -m stress.search --workspace {compared.root} --seeds 1 --max-metric-calls 60"
    shown = Workspace(REPOSITORY).sh(command).stdout
    rows = [line.split("│") for line in shown.splitlines() if line.startswith("│ k = ")]
    assert [row[1].strip() for row in rows] == [f"k = {k}{race}" for k in (1, 2, 4) for race in ("", ", racing")]
    assert all(int(row[2]) >= 60 for row in rows), "metric calls"


def test_the_page_opens_without_errors_or_network(compared: Workspace, browser: Chrome) -> None:
    browser.get((compared.root / "report/report.html").as_uri())
    assert browser.title == "P²O: compare-microworld-quick"
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    pictures = browser.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(pictures) == 7
    assert all(picture.size["width"] > 200 and picture.size["height"] > 80 for picture in pictures)
    headings = [heading.text for heading in browser.find_elements(By.TAG_NAME, "h2")]
    assert headings[:3] == ["Claims", "Arms", "Accuracy over tokens"]
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page does not scroll sideways"
    links = {row.text for row in browser.find_elements(By.CSS_SELECTOR, "#arms + div tr td:first-child")}
    assert links == {"p2o", "grpo"}


def test_a_script_in_a_template_stays_text(compared: Workspace, browser: Chrome, tmp_path: Path) -> None:
    shutil.copytree(compared.root, tmp_path / "experiments" / "x")
    shutil.copyfile(compared.root.parents[1] / "mlproject", tmp_path / "mlproject")
    shutil.copyfile(compared.root.parents[1] / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(compared.root.parents[1] / "recipes", tmp_path / "recipes")
    hostile = Workspace(tmp_path / "experiments" / "x")
    path = hostile.root / "data/runs/p2o-s0/1/templates.json"
    found = json.loads(path.read_text())
    for template in found["templates"]:
        template["text"] = INJECTED
    path.write_text(json.dumps(found))
    hostile.sh("p2o report")
    browser.get((hostile.root / "report/report.html").as_uri())
    assert browser.title == "P²O: x"
    assert INJECTED in browser.find_element(By.CSS_SELECTOR, "ul.tree").text
