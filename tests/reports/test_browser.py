"""Reports in a browser: nothing is wider than the window, and the browser has nothing to say."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluations import EVALUATIONS, classes
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


def test_twenty_long_labels_fit_a_printed_page(driver: Any, tmp_path: Path) -> None:
    """718 pixels are between the margins of A4."""
    classes().write(tmp_path)
    stored = json.loads((tmp_path / "outcomes.json").read_text())
    stored["sets"]["dev"]["labels"] = [f"a_rather_long_label_{i}" for i in range(20)]
    (tmp_path / "outcomes.json").write_text(json.dumps(stored))
    write_evaluation_report(tmp_path, "my-model", {}, ["pocketbert"], explained=None)
    size = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.get(f"file://{tmp_path}/report.html")
    assert driver.execute_script("return document.querySelector('.matrix').rows.length") == 21
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 718
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
