"""Reports in a browser: nothing is wider than the window, and the browser has nothing to say."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluations import EVALUATIONS
from pocketbert.reports.report import write_evaluation_report

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"),
]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as folder:
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"):
            options.add_argument(flag)
        found = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        yield found
        found.quit()


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_nothing_is_wider_than_the_window(driver: Any, kind: str, tmp_path: Path) -> None:
    EVALUATIONS[kind]().write(tmp_path)
    write_evaluation_report(tmp_path, "my-model", {"notes": "long" * 100}, ["pocketbert"], explained=None)
    colours = set()
    for scheme in ("light", "dark"):
        for width in (360, 1400):
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
            )
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            driver.get(f"file://{tmp_path}/report.html")
            page = "document.documentElement"
            assert driver.execute_script(f"return {page}.scrollWidth <= {page}.clientWidth"), (scheme, width)
            colours.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    assert driver.get_log("browser") == []
