"""Snakemake's own report of a run: every table and figure is in it, in its category and with its caption."""

import json

import pytest

from tests.workflow.conftest import TEST_CONFIG, snakemake

pytestmark = pytest.mark.workflow


def value_of(name, page):
    """A variable of the page, each of which has a script to itself."""
    start = page.index(f"var {name} = ", page.index(f'<script id="{name}">'))
    return json.JSONDecoder().raw_decode(page, page.index("{", start))[0]


def test_snakemakes_report_has_every_table_and_figure_with_its_caption_and_category(copy, tmp_path):
    done = snakemake(copy, "--configfile", TEST_CONFIG, "--report", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    results = copy / "results" / "test"
    made = [*results.glob("tables/*.html"), *results.glob("figures/*.png"), results / "report" / "index.html"]
    shown = value_of("results", page)
    assert {str(path.relative_to(copy)) for path in made} <= shown.keys()
    assert [name for name, entry in shown.items() if not entry["caption"].strip()] == []
    categories = value_of("categories", page)
    assert {"Report", "Tables", "Figures"} == categories.keys()
    for category, ending in (("Tables", ".html"), ("Figures", ".png")):
        listed = {name for group in categories[category].values() for name in group}
        assert {name for name in shown if name.endswith(ending) and "/report/" not in name} <= listed
    assert "Other" not in categories["Tables"].keys() | categories["Figures"].keys()
