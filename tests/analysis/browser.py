"""A browser for tests of pages: headless Chromium, driven by the system's own chromedriver.

A test module imports both fixtures; tests ask for `browser`.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(name="chromium", scope="session")
def chromium_fixture() -> Iterator[Any]:
    """One Chromium for all tests that need one."""
    if lacking():
        pytest.skip(lacking())
    driver = start()
    yield driver
    driver.quit()


def lacking() -> str:
    """What this machine lacks for a browser, or nothing."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed"
    if CHROMIUM is None or DRIVER is None:
        return "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
    return ""


def start() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # with its path given, selenium looks for no driver on the net
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER or ""))
    driver.set_script_timeout(60)
    return driver


@pytest.fixture(name="browser")
def browser_fixture(chromium: Any) -> Any:
    """That Chromium as if new: 1280 × 900 pixels, light, nothing logged or stored by tests before."""
    chromium.get("about:blank")
    resize(chromium, 1280)
    emulate(chromium)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    return chromium


def resize(browser: Any, width: int, height: int = 900) -> None:
    """Give the page a viewport of this size, narrower than a window could be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate(browser: Any, *, scheme: str = "light", media: str = "") -> None:
    """Let the page believe in this colour scheme and medium ("print"), and scroll at once, as clicks rely on it."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def open_page(browser: Any, path: Path) -> None:
    """Open a file as a reader would, with nothing stored by pages before."""
    browser.get(path.as_uri())
    if browser.execute_script("const stored = localStorage.length; localStorage.clear(); return stored"):
        browser.get(path.as_uri())
