"""The page of review in a real browser: keys, a narrow screen, the dark half, and that nothing is asked of elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.anomalies.verdicts import VerdictBook
from tests.review_samples import HOSTILE, fill

pytestmark = pytest.mark.browser
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address that ``fedcart review`` prints, over eight alarms."""
    fill(tmp_path / "state", item=HOSTILE)
    environment = os.environ | {"FEDCART_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-m", "cli.main", "review", "no-model-needed", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        try:
            url = json.loads(server.stdout.readline())["url"]
            yield url
        finally:
            server.terminate()
            said = server.stderr.read()
    assert url.partition("#")[2] not in said  # the key is in no log


@contextmanager
def browser(folder: Path, width: int = 1200, *, dark: bool = False) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        if dark:
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK)
        driver.implicitly_wait(10)
        yield driver
        assert driver.get_log("browser") == []  # nothing refused by the policy, no script failed
    finally:
        driver.quit()


def enter(driver: Any, url: str) -> None:
    driver.get(url)
    driver.find_element("css selector", "article")
    assert "#" not in driver.current_url


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def until(driver: Any, holds: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10).until(lambda _: holds())


def test_alarms_are_judged_with_the_keyboard_alone(page: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    book = VerdictBook(tmp_path / "state")
    with browser(tmp_path) as driver:
        enter(driver, page)
        press(driver, "j", "j", "k", "j", "y")  # the second of the list
        until(driver, lambda: len(book.said()) == 1)
        assert (book.said()[0].alarm, book.said()[0].anomaly) == ("000000000006", True)
        until(driver, lambda: "000000000005" in driver.switch_to.active_element.get_attribute("href"))
        press(driver, "n")
        until(driver, lambda: len(book.said()) == 2)
        until(driver, lambda: "000000000004" in driver.switch_to.active_element.get_attribute("href"))
        press(driver, Keys.ENTER)
        until(driver, lambda: driver.current_url.endswith("/alarm/000000000004"))
        press(driver, "n")
        until(driver, lambda: len(book.said()) == 3 and driver.find_elements("css selector", ".undo"))
        press(driver, "u")
        until(driver, lambda: book.said()[2].undone)
        press(driver, Keys.ESCAPE)
        until(driver, lambda: "6 open alarms" in driver.find_element("css selector", "h1").text)


def test_tab_reaches_every_button_and_a_field_takes_letters(page: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    with browser(tmp_path) as driver:
        enter(driver, page)
        wanted = len(driver.find_elements("css selector", "button, select, input:not([type=hidden]), a.open"))
        reached = set()
        for _ in range(wanted):
            press(driver, Keys.TAB)
            reached.add(driver.switch_to.active_element.id)
        assert len(reached) == wanted
        driver.find_element("name", "who").send_keys("yn")
        assert driver.find_element("name", "who").get_attribute("value") == "yn"
        assert VerdictBook(tmp_path / "state").said() == []


@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_screen_needs_no_scrolling_sideways(page: str, tmp_path: Path, width: int) -> None:
    with browser(tmp_path, width) as driver:
        enter(driver, page)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        driver.find_element("css selector", "a.open").click()
        until(driver, lambda: driver.find_elements("css selector", "svg .mark"))
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        small = "return Math.min(...[...document.querySelectorAll('.judge button')].map((b) => b.offsetHeight))"
        assert driver.execute_script(small) >= 40  # for a thumb


def test_the_dark_half_is_dark(page: str, tmp_path: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    with browser(tmp_path / "a", dark=True) as driver:
        enter(driver, page)
        assert max(driver.execute_script(ground)) < 60
    with browser(tmp_path / "b") as driver:
        driver.get(page)
        assert min(driver.execute_script(ground)) > 200


def test_without_the_key_the_door_stays_closed(page: str, tmp_path: Path) -> None:
    with browser(tmp_path) as driver:
        driver.get(page.partition("#")[0])
        assert driver.find_element("css selector", "h1").text == "Enter"
        assert not driver.find_elements("css selector", "article")
