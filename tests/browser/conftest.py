"""A headless Chromium and a report of made-up runs, shared by all tests of the page."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from east.analysis.aggregate import read_table
from east.analysis.sources import Sources
from east.render.figures import TableData, draw
from east.render.page import report_page
from tests.unit.fake_report import make_report, write_derived
from tests.unit.fake_runs import write_curve

HOSTILE = "</style></script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \u202eabc &\""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system. Its event loop must end with these tests, since Snakemake refuses to run inside one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian's package is `chromium`)")
    with sync_playwright() as playwright:
        # As root, which containers are, Chromium starts without its sandbox only.
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with finished, diverged and missing runs, a figure, and hostile texts wherever there are any."""
    folder = tmp_path_factory.mktemp("report")
    spec = make_report(folder, HOSTILE)
    for run in ("static/seed17", "static/seed18", "cosine-m10-n2-g2/seed17", "cosine-m10-n2-g2/seed19"):
        write_curve(folder / "runs" / "table2" / run, [20.0 + 0.25 * epoch for epoch in range(250)])
    sources = Sources(folder)
    drawing = draw("multiplier", TableData(read_table(folder / "aggregate" / "table2.json", sources), sources))
    write_derived(folder, {"figures/table2-multiplier.svg": drawing.svg})
    (folder / "index.html").write_text(report_page(spec, sources), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report in a browser of its own; what it complains of, and what it asks for, fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(**settings: object) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        # For information Chromium notes, say, that a Tab came before it had looked for `autofocus`.
        page.on("console", lambda message: message.type != "info" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        return page

    requests: list[str] = []
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= {report.as_uri()}
