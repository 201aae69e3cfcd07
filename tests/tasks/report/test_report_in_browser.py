"""The report and the Data Docs in Chromium: they open, ask nothing of the network, and fit a phone."""

import json
import os
import shutil
from pathlib import Path

import pytest
from run_records import make_settings, write_records

from tasks import report
from tasks.expectations import audit
from tasks.formats.record import Row
from tasks.params import Gates
from tasks.sample import Turn
from tasks.tally import Tally

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or "/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium here; name one in the environment variable CHROMIUM")
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def written(tmp_path):
    layout = write_records(tmp_path)
    report.write(layout, make_settings(tmp_path))
    return layout


def visit(browser, path, width=1200, scheme="light"):
    """The page, what it said on the console, and what it asked for beyond itself."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    foreign = [url for url in asked if not url.startswith(("file:", "data:"))]
    return page, said, foreign


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_opens_alone(browser, written, width, scheme):
    page, said, foreign = visit(browser, written.report, width, scheme)
    assert (said, foreign) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.locator("svg").all():
        box = chart.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 90
    assert page.locator("svg polyline.line").count() == 2
    loaded = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(loaded) == 36
    assert all(loaded)


def test_the_ground_follows_the_colour_scheme(browser, written):
    grounds = {
        scheme: visit(browser, written.report, scheme=scheme)[0].evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    light, dark = (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) for ground in grounds.values())
    assert light > 600 > 150 > dark


def test_data_docs_open_alone_and_lead_on(browser, tmp_path):
    tally = Tally()
    for row in range(5):
        turns = (Turn("user", "q"), Turn("assistant", "a"))
        tally.add(Row(row, "", None, "", turns, ()), "empty_text" if row == 3 else None, duplicate=False)
    audit(tally.frame(), Gates(), tmp_path / "docs")
    page, said, foreign = visit(browser, tmp_path / "docs/index.html")
    page.click("text=rows")
    assert page.locator("text=no row is rejected for empty_text").is_visible()
    assert (said, foreign) == ([], [])
