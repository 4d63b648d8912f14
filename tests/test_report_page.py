"""The report in headless Chromium: the slider moves, and the page asks nobody for anything."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_report import EVIL, page, slider_of

from panacea_lib.evaluation import preference_grid
from panacea_lib.workspace import PROJECT_ROOT

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[int, Path]:
    """A page per number of dimensions, with attacks in every text."""
    folder = tmp_path_factory.mktemp("reports")
    written = {m: folder / f"{m}.html" for m in (2, 3)}
    for m, file in written.items():
        file.write_text(page(slider=slider_of(m)), encoding="utf-8")
    return written


@pytest.fixture
def opened(browser, files, tmp_path):
    """Opens the page of m dimensions, and at the end insists that it was quiet: no error, no
    dialog, and no request but for the file itself."""
    pages: list[tuple[Page, list[str]]] = []
    heard: list[str] = []

    def call(m: int, width: int = 1100, **options) -> Page:
        viewport = {"width": width, "height": 900}
        shown = browser.new_page(viewport=viewport, **options)
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: heard.append(message.text))
        shown.on("pageerror", lambda error: heard.append(str(error)))
        shown.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        pages.append((shown, asked))
        shown.goto(files[m].as_uri())
        return shown

    yield call
    for number, (shown, asked) in enumerate(pages):
        # Pictures are data: URLs, which no network sees.
        outside = [url for url in asked[1:] if not url.startswith("data:")]
        shown.screenshot(path=tmp_path / f"last{number}.png", full_page=True)
        shown.close()
        assert asked[0].startswith("file://") and outside == []
    assert heard == []


def answer(shown: Page, prompt: int = 0) -> str:
    return shown.locator(f"#slider-answer-{prompt}").inner_text()


def said(method: str, point: int) -> str:
    """The answer to the first prompt, as test_report makes it."""
    return f"{method} at {point} to 0 {EVIL}".replace("\x00", "\ufffd")


def test_two_dimensions_share_one_slider(opened):
    shown = opened(2)
    slider = shown.get_by_label("weight of dimension_0")
    nearest, here = shown.locator("#slider-nearest"), shown.locator("svg .here")
    expect(nearest).to_contain_text("dimension_0 0.50")
    assert here.get_attribute("data-point") == "5" and answer(shown) == said("panacea", 5)
    before = (here.get_attribute("cx"), here.get_attribute("cy"))
    slider.focus()
    shown.keyboard.press("End")  # by keyboard alone
    expect(nearest).to_contain_text("dimension_0 1.00")
    assert here.get_attribute("data-point") == "10" and answer(shown) == said("panacea", 10)
    assert before != (here.get_attribute("cx"), here.get_attribute("cy"))
    shown.keyboard.press("ArrowLeft")
    expect(shown.locator("#slider-asked")).to_contain_text("dimension_0 0.99")
    expect(nearest).to_contain_text("dimension_0 1.00")  # the grid has no 0.99, and says so
    assert "dimension_0 0.99" in slider.get_attribute("aria-valuetext")


def test_the_figures_are_those_of_the_point(opened):
    shown, data = opened(2), slider_of(2)
    slider = shown.get_by_label("weight of dimension_0")
    for weight, point in ((0, 0), (22, 2), (100, 10)):
        slider.fill(str(weight))
        told = data["fronts"][0][point]
        mean, low, high = (f"{x:.3f}".replace("-", "−") for x in told["rewards"][1])
        expect(shown.locator("#slider-mean-1")).to_have_text(mean)
        expect(shown.locator("#slider-interval-1")).to_have_text(f"{low} to {high}")
        optimum = f"{data['optimum'][point][1]:.3f}".replace("-", "−")
        expect(shown.locator("#slider-optimum-1")).to_have_text(optimum)
        expect(shown.locator("#slider-kl")).to_contain_text(f"{told['kl'][0]:.3f}")
        expect(shown.locator("#slider-share")).to_have_text(f"{told['share']:.3f}")


@pytest.mark.parametrize("m", [2, 3])
def test_another_method_gives_other_answers_and_figures(opened, m):
    shown = opened(m)
    mean = shown.locator("#slider-mean-0").inner_text()
    assert answer(shown).startswith("panacea at")
    shown.get_by_label("method").select_option("panacea_dpo")
    assert answer(shown).startswith("panacea_dpo at")
    assert shown.locator("#slider-mean-0").inner_text() != mean
    reference = shown.locator(".answers .pair > div:last-child .answer").first
    assert reference.inner_text().startswith("reference at")


def test_three_dimensions_have_a_slider_each_on_the_simplex(opened):
    shown = opened(3)
    nearest, bars = shown.locator("#slider-nearest"), shown.locator("svg .here rect")
    widths = [bar.get_attribute("width") for bar in bars.all()]
    assert len(widths) == 3
    for place, value in enumerate((100, 0, 0)):
        shown.locator(f"#slider-weight-{place}").fill(str(value))
    expect(nearest).to_contain_text("dimension_0 1.00, dimension_1 0.00")
    last = len(preference_grid(3)) - 1
    assert shown.locator("svg .here").get_attribute("data-point") == str(last)
    assert answer(shown) == said("panacea", last)
    assert widths != [bar.get_attribute("width") for bar in bars.all()]
    shown.locator("#slider-weight-1").fill("50")  # 100 : 50 : 0
    expect(shown.locator("#slider-asked")).to_contain_text("dimension_0 0.67, dimension_1 0.33")
    expect(nearest).to_contain_text("dimension_0 0.60, dimension_1 0.40")
    for place in range(3):
        shown.locator(f"#slider-weight-{place}").fill("0")
    expect(shown.locator("#slider-asked")).to_contain_text("dimension_0 0.33")


def test_nothing_a_model_wrote_has_acted(opened):
    """No dialog is open (`opened` hears of one), and no text has become an element."""
    shown = opened(2)
    for method in ("panacea_dpo", "panacea"):
        shown.get_by_label("method").select_option(method)
        assert shown.locator("script").count() == 2
        assert shown.locator("#slider b").count() == 2  # ours: KL and share
        assert answer(shown) == said(method, 5)


@pytest.mark.parametrize("m", [2, 3])
def test_a_narrow_screen_does_not_scroll_sideways(opened, m):
    shown = opened(m, width=360)
    width = shown.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 360
    chart = shown.locator("#slider-chart svg").bounding_box()
    assert chart is not None and 240 <= chart["width"] <= 360
    shown.set_viewport_size({"width": 1100, "height": 900})  # turned round: it is drawn anew
    expect(shown.locator("#slider-chart svg")).to_have_attribute("viewBox", wider(chart["width"]))


def wider(width: float) -> re.Pattern:
    """A view box other than the narrow one."""
    return re.compile(rf"^0 0 (?!{width:.0f}\b)\d+")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_colour_scheme(opened, scheme, dark):
    shown = opened(2, color_scheme=scheme)
    expect(shown.get_by_text("The slider needs JavaScript")).to_be_hidden()
    ground, ink = shown.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    sums = [sum(int(part) for part in colour[4:-1].split(",")) for colour in (ground, ink)]
    assert (sums[0] < sums[1]) == dark


def test_without_javascript_the_page_still_reads(opened):
    shown = opened(2, java_script_enabled=False)
    expect(shown.get_by_text("The slider needs JavaScript")).to_be_visible()
    expect(shown.locator("#slider")).to_be_hidden()
    expect(shown.get_by_role("heading", name="What each preference gets")).to_be_visible()


def test_the_report_is_photographed(files, tmp_path):
    """By the command that makes the picture in docs/, from a workspace's report."""
    reports = tmp_path / "home" / "var" / "reports"
    reports.mkdir(parents=True)
    shutil.copy(files[2], reports / "tiny.html")
    out = tmp_path / "report.png"
    command = [sys.executable, "-m", "benchmarks.report_screenshot"]
    run = partial(subprocess.run, cwd=PROJECT_ROOT, capture_output=True, text=True)
    env = {**os.environ, "PANACEA_HOME": str(tmp_path / "home")}
    finished = run([*command, "tiny", str(out), "--width", "500", "--height", "400"], env=env)
    assert finished.returncode == 0, finished.stderr
    with Image.open(out) as picture:
        assert picture.size == (500, 400) and len(picture.getcolors()) > 5
    assert out.stat().st_size < 300_000
    finished = run([*command, "nothing", str(out)], env=env)
    assert finished.returncode == 2 and "panacea materialize nothing" in finished.stderr
