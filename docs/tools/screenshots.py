"""Pictures of the real pages for the documentation: `make screenshots`.

Makes a workspace with a small run of two arms and a small comparison (what is there already is not made again), starts
`p2o up` in it, and photographs Prefect's, MLflow's and our own pages in headless Chromium.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.platform.chromium import chromium
from tests.platform.workspace import REPOSITORY, Workspace, new_workspace

IMAGES = REPOSITORY / "docs" / "images"
LARGEST = 250 * 1024
"""Bytes of a picture."""
WIDTH, HEIGHT, TALL = 1360, 860, 1260
PATIENCE_S = 300.0
SETTLE_S = 3.0
"""Seconds for a page's last animation, after all that is waited for is there."""
EXPERIMENT = {"experiment": "microworld", "iterations": 6, "tracking": {"project": "p2o"}}
COMPARISON = {
    "recipe": "params.yaml",
    "arms": ["p2o", "grpo", "p2o-random"],
    "seeds": 1,
    "budget_tokens": 25_000,
    "max_iterations": 8,
    "settings": {"evolve.every": 4},
}


def place(root: Path) -> Workspace:
    """A workspace of the tests' size."""
    if not (root / "params.yaml").exists():
        new_workspace(root)
    parameters = yaml.safe_load((REPOSITORY / "tests/platform/params.yaml").read_text()) | EXPERIMENT
    (root / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    (root / "recipes/comparisons.yaml").write_text(yaml.safe_dump({"microworld": COMPARISON}))
    # the jobs of MLflow's server, which nothing here asks for, are eight processes more
    return Workspace(root, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def train(workspace: Workspace) -> None:
    """A finished run of `p2o` and of `grpo`, and the report of the first."""
    for command in ("p2o run", "p2o run --arm grpo", "p2o report"):
        workspace.sh(command, timeout=3600)


def compare(workspace: Workspace) -> Path:
    """A finished comparison. Returns its folder."""
    root = workspace.root
    compared = root / "experiments/compare-microworld"
    if not (compared / "data/base").exists():
        shutil.copytree(root / "data/base", compared / "data/base")
    if not (compared / "report/report.html").exists():
        workspace.sh("p2o compare --recipe microworld", timeout=3600)
    return compared


class Camera:
    """Opens a page, waits for what it shall show, and keeps what it shows."""

    def __init__(self, driver: Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, url: str, *texts: str, height: int = HEIGHT) -> None:
        """Raises TimeoutException where a text does not come. ``about:blank`` between makes a new hash a new page."""
        self.driver.set_window_size(WIDTH, height)
        self.driver.get("about:blank")
        self.driver.get(url)
        self.until(*texts)

    def until(self, *texts: str) -> None:
        for text in texts:
            message = f"{text!r} does not come on {self.driver.current_url}"
            WebDriverWait(self.driver, PATIENCE_S).until(lambda d, text=text: text in self.text(), message)
        time.sleep(SETTLE_S)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body ? document.body.innerText : ''"))

    def click(self, xpath: str) -> None:
        found = WebDriverWait(self.driver, PATIENCE_S).until(lambda d: d.find_elements(By.XPATH, xpath), xpath)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", found[0])
        time.sleep(SETTLE_S)

    def scroll_to(self, xpath: str) -> None:
        found = WebDriverWait(self.driver, PATIENCE_S).until(lambda d: d.find_elements(By.XPATH, xpath), xpath)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'start'})", found[0])
        time.sleep(SETTLE_S)

    def shoot(self, name: str) -> None:
        """Keep what the window shows as ``<name>.png``, with as many colours as the size allows."""
        picture = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        for colours in (256, 128, 64, 32):
            written = BytesIO()
            picture.quantize(colours, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
            if written.tell() <= LARGEST:
                break
        (self.folder / f"{name}.png").write_bytes(written.getvalue())
        print(f"{name}.png: {written.tell() // 1024} KiB, {colours} colours", flush=True)


def shoot_reports(camera: Camera, root: Path, compared: Path) -> None:
    camera.open((root / "data/reports/microworld/report.html").as_uri(), "rescued")
    camera.shoot("report-run")
    camera.open((compared / "report/report.html").as_uri(), "Accuracy over tokens")
    camera.scroll_to("//h2[contains(., 'Accuracy over tokens')]")
    camera.shoot("report-comparison")


def shoot_prefect(camera: Camera, url: str) -> None:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.sorting import FlowRunSort

    with SyncPrefectClient(f"{url}/api") as client:
        deployment = client.read_deployment_by_name("train/train")
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_ASC)
        run = next(r for r in runs if r.name == "microworld · p2o · seed 0" and r.state and r.state.is_completed())
        artifacts = client.request(
            "POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": ["microworld-iteration-5"]}}}
        ).json()
    camera.open(f"{url}/runs/flow-run/{run.id}", run.name, "Completed", height=TALL)
    camera.shoot("prefect-run")
    camera.open(f"{url}/deployments/deployment/{deployment.id}/run", "arm", "Submit")
    camera.scroll_to("//*[normalize-space(text())='Parameters']")
    camera.shoot("prefect-custom-run")
    camera.open(f"{url}/artifacts/artifact/{artifacts[-1]['id']}", "What was hard", height=TALL)
    camera.shoot("prefect-iteration")


def shoot_mlflow(camera: Camera, url: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("p2o")
    assert experiment is not None
    number = experiment.experiment_id
    parents = client.search_runs([number], "tags.`p2o.key` LIKE '%'")
    camera.open(f"{url}/health")  # the assistant opens by itself, once, over a third of the page
    camera.driver.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    camera.open(f"{url}/#/experiments/{number}/runs", *(str(run.info.run_name) for run in parents))
    camera.shoot("mlflow-runs")
    camera.open(f"{url}/#/experiments/{number}/runs?compareRunsMode=CHART", "accuracy/hard")
    camera.shoot("mlflow-charts")
    camera.open(f"{url}/#/experiments/{number}/prompts/microworld-templates", "Version")
    camera.shoot("mlflow-prompts")
    shoot_trace(camera, url, client, number)


def shoot_trace(camera: Camera, url: str, client: Any, number: str) -> None:
    """A rescued problem's."""
    traces: Any = client.search_traces(locations=[number], filter_string="tags.`p2o.kind` = 'rescued'", max_results=50)
    # a search may keep the empty template too
    trace = next(t for t in traces if t.data.spans[0].inputs["template"])
    camera.open(f"{url}/#/experiments/{number}/traces?selectedEvaluationId={trace.info.trace_id}", "Outputs")
    camera.click("//button[contains(., 'Assess')]")
    camera.shoot("mlflow-trace")


def main(
    workspace: Annotated[Path, typer.Option(help="Where the run is made, or was.")] = Path("/tmp/p2o-screenshots"),
    prefect_port: int = 4317,
    mlflow_port: int = 5317,
    comparison: Annotated[
        Path | None, typer.Option(help="Folder of a finished one, for its report; a small one is made by default.")
    ] = None,
    only: Annotated[str, typer.Option(help="reports, prefect or mlflow; all by default.")] = "",
) -> None:
    """Make docs/images anew."""
    placed = place(workspace)
    prefect, mlflow = f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}"
    os.environ |= {"PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow}
    steps: dict[str, Callable[[Camera], None]] = {
        "reports": lambda camera: shoot_reports(camera, workspace, comparison or compare(placed)),
        "prefect": lambda camera: shoot_prefect(camera, prefect),
        "mlflow": lambda camera: shoot_mlflow(camera, mlflow),
    }
    IMAGES.mkdir(exist_ok=True)
    placed.sh(f"p2o up --prefect-port {prefect_port} --mlflow-port {mlflow_port}")
    try:
        train(placed)
        with chromium() as driver:
            for name, step in steps.items():
                if only in ("", name):
                    step(Camera(driver, IMAGES))
    finally:
        placed.sh("p2o down")


if __name__ == "__main__":
    typer.run(main)
