import base64
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from fake_runs import DIVERGED, PUBLISHED, grid

from east.analysis.aggregate import aggregate, write_json
from east.analysis.provenance import Provenance
from east.errors import EastError
from east.render.report import Reading, ReportFigure, ReportSection, ReportSpec, write_report
from east.render.tables import render_table

HOSTILE = "<script>alert(1)</script><img src=https://x.test/a.png onerror=b()> \u202e &\"'"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path style="fill: #1f2933"/></svg>'


@pytest.fixture
def spec(tmp_path):
    table = aggregate(
        grid(tmp_path, [80.0, 81.0], [85.0, DIVERGED, None], comparable=False),
        tmp_path,
        published_dir=PUBLISHED,
        partial=True,
    )
    write_json(table, tmp_path / "table2.json")
    render_table(table).write(tmp_path / "table2")
    (tmp_path / "figure.svg").write_text(SVG)
    figure = ReportFigure(svg=tmp_path / "figure.svg", caption="A figure")
    return ReportSpec(
        title="A title",
        name="demo",
        introduction=("An introduction.",),
        aggregated=(tmp_path / "table2.json",),
        tables=(
            ReportSection(
                heading="ResNet-34 on CIFAR-10",
                table=tmp_path / "table2.html",
                downloads=(tmp_path / "table2.csv",),
                figures=(figure,),
            ),
        ),
        readings=(
            Reading(matter="Kept", value="x", default="x", other="y", key="a.b"),
            Reading(matter="Changed", value="z", default="w"),
        ),
        config="seeds:\n  - 17",
        provenance=Provenance(seeds={17: 2}, code_digests={"d1": 3, "d2": 1}, commits={"c": 4}, seconds=7200),
    )


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def page_of(spec: ReportSpec, tmp_path) -> str:
    out = tmp_path / "report" / "index.html"
    write_report(out, spec)
    return out.read_text()


def test_the_page_loads_nothing_and_runs_nothing(tmp_path, spec):
    hostile = spec.model_copy(
        update={
            "title": HOSTILE,
            "name": HOSTILE,
            "introduction": (HOSTILE,),
            "facts": {HOSTILE: HOSTILE},
            "config": HOSTILE,
            "readings": (
                Reading(matter=HOSTILE, value=HOSTILE, default="", other=HOSTILE, key=HOSTILE, reason=HOSTILE),
            ),
            "figures": (ReportFigure(svg=tmp_path / "figure.svg", caption=HOSTILE, alt=HOSTILE),),
            "tables": (*spec.tables, ReportSection(heading=HOSTILE, text=(HOSTILE,))),
            "provenance": Provenance(code_digests={HOSTILE: 1, "d": 1}, devices={HOSTILE: 1}),
        }
    )
    text = page_of(hostile, tmp_path)
    parser = _Page()
    parser.feed(text)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parser.tags}
    attributes = [pair for _, of_tag in parser.tags for pair in of_tag.items()]
    targets = [str(value) for key, value in attributes if key in {"src", "href"}]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert not any(key.startswith("on") for key, _ in attributes)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text
    assert "\u202e" not in text


def test_links_in_the_page_lead_somewhere(tmp_path, spec):
    parser = _Page()
    parser.feed(page_of(spec, tmp_path))
    anchors = [
        attributes["href"] for tag, attributes in parser.tags if tag == "a" and str(attributes["href"]).startswith("#")
    ]
    identifiers = [attributes["id"] for _, attributes in parser.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert (
        {f"#{identifier}" for identifier in identifiers} >= set(anchors) >= {"#provenance", "#readings", "#at-a-glance"}
    )


def test_coverage_and_cautions_come_first(tmp_path, spec):
    text = re.sub(r"<[^>]*>", "", page_of(spec, tmp_path))
    assert "3 of 5 runs finished" in text
    assert "1 run of the plan has not finished yet" in text
    assert "1 run diverged; no mean includes them" in text
    assert "Table 2 ran with another network" in text
    assert "trained by 2 different versions of the code: 3 runs by d1 and 1 run by d2" in text
    assert text.index("Read this first") < text.index("At a glance")


def test_a_plan_that_is_complete_has_nothing_to_caution(tmp_path, spec):
    table = aggregate(grid(tmp_path / "other", [80.0]), tmp_path / "other", published_dir=PUBLISHED)
    write_json(table, tmp_path / "table2.json")
    clean = spec.model_copy(update={"provenance": Provenance(code_digests={"d1": 1})})
    assert "Read this first" not in page_of(clean, tmp_path)


def test_figures_and_downloads_are_inside_the_page(tmp_path, spec):
    text = page_of(spec, tmp_path)
    (svg,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    inside = base64.b64decode(svg).decode()
    assert "<style>@media screen and (prefers-color-scheme:dark)" in inside
    assert '[style*="fill: #1f2933"]{fill:#e3e8ee!important}' in inside
    (table,) = re.findall(r"data:text/csv;charset=utf-8;base64,([^\"]+)\" download=\"table2\.csv\"", text)
    assert base64.b64decode(table) == (tmp_path / "table2.csv").read_bytes()


def test_readings_off_the_default_are_marked(tmp_path, spec):
    text = page_of(spec, tmp_path)
    assert text.count("not the default") == 1
    assert "Default: w" in text
    assert "seeds:\n  - 17\n" in text


def test_the_overview_counts_rows_above_the_static_one(tmp_path, spec):
    row = re.search(r"<tr[^>]*><th[^>]*>2</th>.*?</tr>", page_of(spec, tmp_path))
    assert row is not None
    cells = re.sub(r"<[^>]*>", "|", row.group())
    assert "|3 of 5|" in cells
    assert "|80.50 ± 0.71|" in cells
    assert cells.count("|1 of 1|") == 2
    assert cells.strip("|").endswith("–")


def test_the_spec_survives_json(spec):
    assert ReportSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_missing_file_is_named(tmp_path, spec):
    (tmp_path / "figure.svg").unlink()
    with pytest.raises(EastError, match=r"figure\.svg"):
        page_of(spec, tmp_path)


def test_analysis_and_rendering_import_neither_torch_nor_a_plotting_library_needlessly():
    code = (
        "import sys, east.analysis.aggregate, east.analysis.curves, east.analysis.provenance, "
        "east.render.tables, east.render.hyperparameters, east.render.cost, east.render.report\n"
        "assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "import east.render.figures\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
