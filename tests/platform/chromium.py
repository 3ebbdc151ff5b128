"""Debian's Chromium, headless, driven as a person does: by what the page shows, with mouse and keyboard."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from selenium.common.exceptions import SessionNotCreatedException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.clock import PATIENCE_S

SWITCHES = (
    "headless=new no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update "
    "hide-scrollbars window-size=1400,1000"
)
STARTS = 5
"""Chromium has a minute to start, not to be changed, and on a starved machine needs two; what it read is warm then."""


@contextmanager
def chromium() -> Iterator[Chrome]:
    """`make browser` installs it."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for switch in SWITCHES.split():
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = None
    for left in reversed(range(STARTS)):
        try:
            driver = Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))
            break
        except SessionNotCreatedException:
            if not left:
                raise
    assert driver is not None
    driver.set_page_load_timeout(PATIENCE_S)
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person sees and does. What it asks for is waited for: pages fill themselves, and draw themselves anew."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        self.browser.get(url)

    @property
    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """The first true answer. Elements that are gone or covered meanwhile are looked for again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(WebDriverException):
                if found := look():
                    return found
            assert time.monotonic() < deadline, f"{what}: {self.browser.current_url}\n{self.text[:3000]}"
            time.sleep(0.3)

    def shows(self, *words: str) -> None:
        """Until all of these stand in the page."""
        self.until(lambda: all(word in self.text for word in words), f"does not show {words}")

    def find(self, xpath: str) -> WebElement:
        found: WebElement = self.until(lambda: self.browser.find_element(By.XPATH, xpath), f"has no {xpath}")
        return found

    def click(self, xpath: str) -> None:
        """With the mouse, on what is there and not covered."""

        def clicked() -> bool:
            self.browser.find_element(By.XPATH, xpath).click()
            return True

        self.until(clicked, f"nothing to click at {xpath}")

    def press(self, button: str) -> None:
        self.click(f"//button[normalize-space()='{button}']")

    def follow(self, link: str) -> None:
        self.click(f"//a[normalize-space()='{link}']")
