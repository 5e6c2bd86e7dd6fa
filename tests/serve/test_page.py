"""The page in a real browser; skipped where there is none."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.service import Service, running
from pocketbert.serve.app import PAGE

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
needs_browser = pytest.mark.skipif(not BROWSER or not DRIVER, reason="there is no Chromium with its driver")


def test_the_page_is_one_short_file_that_fetches_nothing() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert not [word for word in ("src=", "@import", "url(", '<link rel="stylesheet') if word in text]
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")


class Page:
    """The page as a user operates it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        driver.get(url)
        self.until(lambda: self.driver.execute_script("return models.length"))

    def until(self, test: Callable[[], Any]) -> Any:
        end = time.monotonic() + 300
        while not (found := test()):
            assert time.monotonic() < end, self.driver.find_element("tag name", "body").text
            time.sleep(0.05)
        return found

    def find(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def texts(self, selector: str) -> list[str]:
        """Texts of elements, read in one step: the page may replace elements between two."""
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText)"
        return list(self.driver.execute_script(script, selector))

    def text(self, selector: str) -> str:
        return "\n".join(self.texts(selector))

    def choose(self, name: str) -> None:
        self.find(f"#model option[value='{name}']")[0].click()
        self.answered()

    def type(self, field: str, text: str) -> None:
        self.driver.execute_script("document.getElementById('answer').replaceChildren()")
        box = self.find(f"#field-{field}")[0]
        box.clear()
        box.click()
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})  # keys know no emoji
        self.answered()

    def answered(self) -> None:
        self.until(lambda: self.find("#answer > *"))
        self.until(lambda: self.find("#tokens span") or self.find("#answer .error"))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    with tempfile.TemporaryDirectory() as folder:
        for flag in (*FLAGS, f"--user-data-dir={folder}", "--window-size=1000,900"):
            options.add_argument(flag)
        found = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        yield found
        found.quit()


@pytest.fixture(scope="module")
def page(driver: Any, service: Service) -> Page:
    return Page(driver, f"{service.url}/")


@needs_browser
def test_each_task(page: Page) -> None:
    page.answered()
    assert "positive" in page.text("#answer")
    assert "ms in the model" in page.text("#facts")
    page.choose("classify")
    page.type("text", "the film is great")
    page.until(lambda: page.text("#tokens span").split() == ["[CLS]", "the", "film", "is", "great", "[SEP]"])
    shares = [float(one.split()[-2]) for one in page.texts("#answer .bar")]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    page.find("#why")[0].click()
    page.until(lambda: page.texts("#answer mark") == ["the", "film", "is", "great"])
    page.find("#why")[0].click()
    page.until(lambda: not page.find("#answer mark"))
    page.choose("tag")
    page.type("text", "🙂 marie curie was born in warsaw")
    page.until(lambda: "warsaw" in page.text("#answer"))
    page.find("#why")[0].click()
    page.until(lambda: page.text("#answer h2").startswith("Words for and against"))
    words = page.texts("#answer h2:first-of-type + p mark")
    assert words == ["🙂", "marie", "curie", "was", "born", "in", "warsaw"]
    page.choose("answer")
    page.until(lambda: page.find("#answer h2"))
    question = str(page.find("#field-question")[0].get_attribute("value"))
    assert page.texts("#answer h2 + p mark") == question.split()
    page.find("#why")[0].click()
    passage = str(page.find("#field-context")[0].get_attribute("value"))
    page.until(lambda: any(marked in passage for marked in page.texts("#answer mark")))
    page.choose("fill-mask")
    page.type("text", "the [MASK] is [MASK]")
    page.until(lambda: len(page.find("#answer .bar")) == 10)
    page.choose("choose")
    page.until(lambda: "a cup" in page.text("#answer"))
    page.choose("embed")
    page.type("text", "the film\nthe film\nwarsaw")
    page.until(lambda: page.texts("#answer .bar span")[:1] == ["1.00"])


@needs_browser
def test_errors_are_shown_and_disappear(page: Page) -> None:
    page.choose("fill-mask")
    page.type("text", "no gap")
    page.until(lambda: "no [MASK]" in page.text("#answer [role=alert]"))
    page.type("text", "a [MASK]")
    page.until(lambda: page.find("#answer .bar"))
    page.find("#field-text")[0].send_keys("\ue009a\ue000\ue003")  # all of it is deleted
    page.until(lambda: "choose an example" in page.text("#answer"))
    assert not page.find("#tokens span")


@needs_browser
def test_texts_have_the_direction_of_their_script(page: Page) -> None:
    def edges(selector: str) -> tuple[float, float]:
        """How far a text is from the left and the right edge of its element."""
        script = """
            const element = document.querySelector(arguments[0]), range = document.createRange();
            range.selectNodeContents(element);
            const [text, box] = [range.getBoundingClientRect(), element.getBoundingClientRect()];
            return [text.left - box.left, box.right - text.right];"""
        left, right = page.driver.execute_script(script, selector)
        return float(left), float(right)

    page.choose("answer")
    for text, right_to_left in (("وُلِدَتْ في warsaw", True), ("生于 warsaw 🙂", False)):
        page.type("context", text)
        page.until(lambda text=text: text in page.texts("#answer .text"))  # type: ignore[misc]
        left, right = edges("#answer .text")
        assert (left > right) is right_to_left


@needs_browser
def test_texts_are_not_html(page: Page) -> None:
    page.choose("tag")
    page.type("text", "<img src=x onerror=alert(1)> & <b>warsaw</b>")
    assert not page.find("#answer img")
    assert not page.find("#answer b b")


@needs_browser
def test_the_service_by_keyboard(page: Page) -> None:
    tab = page.find("#tab-try")[0]
    tab.send_keys("\ue014")  # the right arrow
    page.until(lambda: "MB" in page.text("#tiles"))
    assert page.find("#tab-service")[0].get_attribute("aria-selected") == "true"
    assert page.driver.switch_to.active_element.get_attribute("id") == "tab-service"
    assert "sentiment" in page.text("#models")
    page.find("#tab-service")[0].send_keys("\ue012")
    assert page.find("#try")[0].is_displayed()


@needs_browser
def test_every_control_has_a_label(page: Page) -> None:
    unnamed = page.driver.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button, svg')]"
        ".filter(x => !(x.labels?.length || x.textContent.trim() || x.ariaLabel)).length"
    )
    assert unnamed == 0


@needs_browser
def test_a_narrow_screen(page: Page) -> None:
    sized = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sized)
    try:
        for model in ("classify", "answer", "embed"):
            page.choose(model)
            assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_a_missing_key_shows_the_key_field(driver: Any, models: dict[str, Path]) -> None:
    with running(models["classify"], POCKETBERT_API_KEYS="sesame") as service:
        driver.get(f"{service.url}/")
        page = Page.__new__(Page)
        page.driver = driver
        page.until(lambda: page.find("#key")[0].is_displayed())
        assert "API key" in page.text("#answer")
        page.find("#key")[0].send_keys("sesame\ue007")
        page.until(lambda: page.find("#answer .bar"))
