"""By mouse and keyboard in a real browser, on what `p2o up` started: Prefect's pages and MLflow's."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tests.platform.chromium import Page
from tests.platform.home import ENDLESS, UNITS, Home, until

BADGE = "//*[contains(@class,'state-badge')]"
SEED_1 = "tiny-grpo-s1 · grpo · seed 1"


@pytest.fixture
def page(browser: Chrome) -> Page:
    return Page(browser)


def field(page: Page, name: str) -> WebElement:
    """A parameter of Prefect's form."""
    label = f".//span[@class='schema-form-property__label'][starts-with(.,'{name} ')]"
    return page.find(f"//div[contains(concat(' ',@class,' '),' schema-form-property ')][{label}]")


def custom_run(page: Page, home: Home, *, arm: str = "", **numbers: int) -> str:
    """*Deployments*, `train`, *Run*, *Custom run*, the form, *Submit*, and the run's page. Returns its id."""
    page.open(f"http://127.0.0.1:{home.prefect_port}/deployments")
    page.follow("train")
    page.click("//button[contains(@class,'run-menu__run-button')]")
    page.follow("Custom run")
    page.shows("Set of parameters on top of it (recipes/arms.yaml)")
    if arm:
        Select(field(page, "arm").find_element(By.TAG_NAME, "select")).select_by_visible_text(arm)
    for name, number in numbers.items():
        field(page, name).find_element(By.XPATH, ".//button[normalize-space()='int']").click()
        write(page, name, "input", str(number))
    page.press("Submit")
    page.click("//a[contains(@href,'/runs/flow-run/')]")
    page.until(lambda: "/flow-run/" in page.browser.current_url, "the run's page does not open")
    return page.browser.current_url.rpartition("/")[2].partition("?")[0]


def write(page: Page, name: str, kind: str, text: str) -> None:
    box = page.until(lambda: field(page, name).find_element(By.TAG_NAME, kind), f"{name} has no {kind}")
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(text)


def state(page: Page, wanted: str) -> None:
    """Until the run's page says so."""
    page.until(lambda: wanted in [e.text for e in page.browser.find_elements(By.XPATH, BADGE)], f"is not {wanted}")


def test_a_custom_run_is_watched_until_it_is_completed(home: Home, page: Page) -> None:
    run = custom_run(page, home, arm="grpo", seed=1, iterations=1)
    state(page, "Completed")
    page.shows(SEED_1, "tiny-grpo-s1: arm grpo, seed 1", "done: Iteration 1")
    trained = home.workspace.root / "experiments" / "tiny-grpo-s1" / "data" / "runs" / "tiny-grpo-s1"
    assert (trained / "1" / "metrics.json").exists(), run


@pytest.mark.slow
def test_a_run_is_suspended_resumed_cancelled_and_retried(home: Home, page: Page) -> None:
    """With the buttons of its page. Each time its process ends, and the next one goes on with what was finished."""
    run = home.start(seed=6, settings=ENDLESS, iterations=1)
    address = f"http://127.0.0.1:{home.prefect_port}/runs/flow-run/{run}"
    process = home.at_work(run)
    page.open(address)
    page.press("Suspend")
    page.press("Submit")
    state(page, "Suspended")
    until(lambda: not process.is_running(), "its process stays")
    units = set(home.workspace.root.rglob(UNITS))
    page.press("Resume")
    page.press("Submit")
    process = home.at_work(run)
    assert units <= set(home.workspace.root.rglob(UNITS)), "what was finished stayed"
    cancel(page)
    until(lambda: not process.is_running(), "its process stays")
    page.open(address)  # anew: while a page takes in another state its buttons are drawn again, and a click is lost
    state(page, "Cancelled")
    page.press("Retry")
    page.click("//*[@id='p-modal-teleport-target']//button[normalize-space()='Retry']")
    process = home.at_work(run)
    page.open(address)
    state(page, "Running")
    cancel(page)
    until(lambda: not process.is_running(), "its process stays")


def cancel(page: Page) -> None:
    page.press("Cancel")
    page.press("Confirm")
    state(page, "Cancelled")


def mlflow(page: Page, home: Home, where: str) -> None:
    """A page of the experiment `tests`, from its side bar."""
    page.open("about:blank")  # what stands behind the # alone loads no page, and the one before stays for a while
    page.open(f"http://127.0.0.1:{home.mlflow_port}/#/experiments")
    page.follow("tests")
    page.shows("Overview", "Training runs")

    def followed() -> bool:
        for hint in page.browser.find_elements(By.XPATH, "//button[normalize-space()='Got it']"):
            hint.click()  # it covers the side bar, and comes when it likes
        page.browser.find_element(By.XPATH, f"//a[normalize-space()='{where}']").click()
        return True

    page.until(followed, f"{where} is not opened")


def test_two_arms_are_compared_over_tokens(home: Home, page: Page) -> None:
    mlflow(page, home, "Training runs")
    for name in ("tiny-grpo-s1", "tiny · p2o · seed 0"):
        row = page.find(f"//div[@role='row'][.//a[normalize-space()='{name}']]").get_attribute("row-index")
        page.click(f"//div[@role='row'][@row-index='{row}']//input[contains(@class,'ag-checkbox-input')]")
    page.press("Compare")
    page.shows("Comparing 2 Runs from 1 Experiment")
    metric = page.find("//a[normalize-space()='by_tokens/accuracy/hard']")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", metric)
    page.follow("by_tokens/accuracy/hard")
    page.shows("tiny-grpo-s1 (by_tokens/accuracy/hard)", "tiny · p2o · seed 0 (by_tokens/accuracy/hard)", "2/2")
    last = home.workspace.run / "2"
    tokens = json.loads((home.workspace.root / "data" / "reports" / "tiny" / "summary.json").read_text())["tokens"]
    page.shows(f"step={tokens}")
    assert (last / "metrics.json").exists()


def test_a_template_s_versions_are_in_the_registry(home: Home, page: Page) -> None:
    kept = json.loads((home.workspace.run / "2" / "templates.json").read_text())
    best = max((t for t in kept["templates"] if t["kept"]), key=lambda t: sum(t["scores"]) / max(1, len(t["scores"])))
    mlflow(page, home, "Prompts")
    page.follow("tiny-templates")
    page.shows("Version 1", "Version 2", "@ best", "p2o.arm", "Kept in iteration", best["text"].split("\n")[0])


def test_a_rescued_problem_has_a_trace_with_its_verdict(home: Home, page: Page) -> None:
    mlflow(page, home, "Traces")
    page.click("//div[@role='row'][.//*[normalize-space()='True']]//a[starts-with(@aria-label,'Open trace')]")
    page.shows("rescued", "template", "1 linked prompt", "\\boxed{")
