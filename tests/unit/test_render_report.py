import base64
import hashlib
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pytest

from east.analysis.aggregate import aggregate, read_table, table_json
from east.analysis.curves import Curve
from east.analysis.evidence import Evidence, evidence_json, read_evidence
from east.analysis.provenance import provenance_of
from east.analysis.sources import Sources
from east.errors import EastError
from east.render.drawing import MOST_POINTS, curve_drawing, interval_drawing
from east.render.evidence import evidence_tables
from east.render.overview import overview, provenance_rows
from east.render.page import download, report_page
from east.render.view import Interval
from tests.unit.fake_report import SVG, make_report, summarise, write_derived
from tests.unit.fake_runs import PUBLISHED, grid, methods, write_curve, write_run
from tests.unit.fake_tables import gather

HOSTILE = "<script>alert(1)</script><img src=https://x.test/a.png onerror=b()> \u202e &\"'"
# Values that only some texts may have, and what ties the files together.
TIED = {
    "kind",
    "model",
    "dataset",
    "pattern",
    "status",
    "run",
    "spread",
    "published_spread",
    "accuracy",
    "verdict",
    "rule",
}


@pytest.fixture
def spec(tmp_path):
    """A report with a table of two rows, the second of which has a finished, a diverged and a missing run."""
    return make_report(tmp_path)


def page_of(spec, tmp_path):
    return report_page(spec, Sources(tmp_path))


def tags_of(page):
    """Every tag with its attributes."""
    tags, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    return tags


def text_of(page):
    visible = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", visible)).split())


def poisoned(value: Any) -> Any:
    """The same JSON with something hostile behind every text that may be any."""
    if isinstance(value, dict):
        return {key: each if key in TIED else poisoned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


@pytest.fixture
def poisoned_spec(tmp_path):
    """A hostile text in every field that reaches the page: of the spec, tables, evidence, runs and the figure."""
    spec = make_report(tmp_path, HOSTILE)
    table = read_table(tmp_path / "aggregate" / "table2.json", Sources(tmp_path))
    hostile_table = type(table).model_validate(poisoned(table.model_dump(mode="json")) | {"published_table": "2"})
    evidence = poisoned(read_evidence(spec.evidence, Sources(tmp_path)).model_dump(mode="json"))
    write_derived(
        tmp_path,
        {
            "aggregate/table2.json": table_json(hostile_table),
            "analysis/evidence.json": evidence_json(Evidence.model_validate(evidence)),
            "figures/table2-multiplier.svg": SVG.replace("Two &amp; two", '&lt;/title&gt;\u202e"'),
        },
    )
    return spec


def test_hostile_text_reaches_the_page_as_text_only(tmp_path, poisoned_spec):
    page = page_of(poisoned_spec, tmp_path)
    (tmp_path / "honest").mkdir()
    honest = tags_of(page_of(make_report(tmp_path / "honest"), tmp_path / "honest"))
    tags = tags_of(page)
    assert page.count("&lt;script&gt;alert(1)") > 60
    assert [tag for tag, _ in tags].count("script") == 1
    assert {tag for tag, _ in tags} <= {tag for tag, _ in honest}
    assert {key for _, attributes in tags for key in attributes} <= {key for _, of in honest for key in of}
    assert "\u202e" not in page


def test_the_page_loads_nothing(tmp_path, spec):
    page = page_of(spec, tmp_path)
    attributes = [pair for _, of_tag in tags_of(page) for pair in of_tag.items()]
    targets = [str(value) for key, value in attributes if key in {"src", "href"}]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert not any(key.startswith("on") or key == "style" for key, _ in attributes)
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_allows_this_style_and_this_script_alone(tmp_path, spec):
    page = page_of(spec, tmp_path)
    (policy,) = [of["content"] for tag, of in tags_of(page) if of.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        assert (
            rules[f"{kind}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        )


def test_links_and_buttons_in_the_page_lead_somewhere(tmp_path, spec):
    tags = tags_of(page_of(spec, tmp_path))
    identifiers = [attributes["id"] for _, attributes in tags if "id" in attributes]
    links = {attributes["href"][1:] for tag, attributes in tags if tag == "a" and attributes["href"].startswith("#")}
    opened = {attributes["popovertarget"] for tag, attributes in tags if "popovertarget" in attributes}
    assert len(identifiers) == len(set(identifiers))
    assert {"verdict", "tables", "table2", "comparison", "claims", "audit", "figures", "readings"} <= links
    assert len(opened) == 3
    assert links | opened <= set(identifiers)


def test_headings_never_skip_a_level(tmp_path, spec):
    levels = [int(tag[1]) for tag, _ in tags_of(page_of(spec, tmp_path)) if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_coverage_verdicts_and_cautions_come_first(tmp_path, spec):
    write_run(tmp_path / "runs", "table2/static/seed18", 81.0, code_digest="d2")
    text = text_of(page_of(spec, tmp_path))
    said = (
        "4 of 6 runs finished, 1 diverged, 1 not finished",
        "No table is decided",
        "Read this first",
        "1 run of the plan has not finished",
        "1 run diverged",
        "4 runs by d1 and 1 run by d2",
        "Mean difference",
    )
    places = [text.index(words) for words in said]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("static", "keys", "headline"),
    [
        ([81.4, 81.5, 81.5], {}, "All tables were reproduced"),
        ([60.4, 60.5, 60.5], {}, "No table was reproduced"),
        ([81.0], {}, "Too few seeds"),
        ([81.4, 81.5, 81.5], {"comparable": False}, "No table tests"),
    ],
)
def test_the_headline_is_what_became_of_the_tables(tmp_path, spec, static, keys, headline):
    table = summarise(grid(tmp_path / "runs", static, **keys), tmp_path)
    evidence = gather([table], PUBLISHED)
    if headline.startswith("All"):
        whole = evidence.comparisons[0].model_copy(update={"verdict": "reproduced"})
        evidence = evidence.model_copy(update={"comparisons": (whole,)})
    write_derived(tmp_path, {"analysis/evidence.json": evidence_json(evidence)})
    assert headline in text_of(page_of(spec, tmp_path))


def test_a_table_that_is_not_comparable_is_not_compared(tmp_path, spec):
    table = summarise(grid(tmp_path / "runs", [80.0, 81.0], comparable=False), tmp_path)
    write_derived(tmp_path, {"analysis/evidence.json": evidence_json(gather([table], PUBLISHED))})
    page = page_of(spec, tmp_path)
    assert "Table 2 ran with" in text_of(page)
    assert 'id="comparison-table2"' not in page


def test_a_cell_opens_its_runs_with_value_curve_time_code_and_files(tmp_path, spec):
    page = page_of(spec, tmp_path)
    (opened,) = re.findall(r'<div popover class="runs" id="runs-table2-2".*?</ol>\n</div>', page, flags=re.DOTALL)
    text = text_of(opened)
    assert "This run 85.00 (1 of 3 seeds) Paper 85.34 ± 0.18 Verdict too few seeds" in text
    assert "Seed 17 85.00 % " in text
    assert "Wall time 1 min Device" in text
    assert "Commit c0ffee" in text
    assert f"Folder {tmp_path}/runs/table2/cosine-m10-n2-g2/seed17 " in text
    assert f"Log {tmp_path}/logs/table2/cosine-m10-n2-g2/seed17.log" in text
    assert "Seed 18 diverged in epoch 7" in text
    assert "Seed 19 not run" in text
    assert opened.count("<polyline") == 1
    assert "Test accuracy from 10.0 % after epoch 1 to 85.0 % after epoch 3" in opened


def test_a_run_that_goes_on_shows_how_far_it_is_and_one_that_was_resumed_how_often(tmp_path, spec):
    write_curve(tmp_path / "runs" / "table2/cosine-m10-n2-g2/seed19", [10.0, 20.0])
    write_run(tmp_path / "runs", "table2/cosine-m10-n2-g2/seed17", 85.0, attempts=2)
    text = text_of(page_of(spec, tmp_path))
    assert "Seed 19 not finished, 2 epochs so far" in text
    assert "Wall time 1 min, 2 attempts" in text


def test_rows_without_runs_open_nothing(tmp_path, spec):
    summarise(methods(tmp_path / "runs", [], note="No such images."), tmp_path)
    alone = spec.model_copy(update={"tables": spec.tables[1:], "evidence": None})
    assert "popovertarget" not in page_of(alone, tmp_path)


def test_comparison_claims_and_audit_are_those_of_their_files(tmp_path, spec):
    page = page_of(spec, tmp_path)
    evidence = read_evidence(spec.evidence, Sources(tmp_path))
    for table in evidence_tables(evidence):
        for view in (*table.views.values(), *table.details.values()):
            (shown,) = re.findall(rf'<figure class="table" id="{view.anchor}">.*?</figure>', page, flags=re.DOTALL)
            for row in view.rows:
                assert " ".join(cell.text for cell in row.cells if cell.text) in text_of(shown)
    # The static row: 80.5 ± 0.71 of two seeds against 81.47 ± 0.47 of three.
    assert "Static Undecided 80.50 ± 0.71 81.47 ± 0.47 −0.97" in text_of(page)
    assert page.count('class="interval"') == 1


def test_without_evidence_the_page_does_without(tmp_path, spec):
    text = text_of(page_of(spec.model_copy(update={"evidence": None}), tmp_path))
    assert "4 of 6 runs finished" in text
    assert "Comparison" not in text


def test_a_plan_that_is_complete_has_nothing_to_caution(tmp_path, spec):
    summarise(grid(tmp_path / "runs", [80.0]), tmp_path)
    assert "Read this first" not in page_of(spec, tmp_path)


def test_figures_and_downloads_are_inside_the_page(tmp_path, spec):
    page = page_of(spec, tmp_path)
    (image,) = [attributes for tag, attributes in tags_of(page) if tag == "img"]
    inside = unquote(image["src"].removeprefix("data:image/svg+xml;charset=utf-8,"))
    assert "<style>@media screen and (prefers-color-scheme:dark)" in inside
    assert '[style*="fill: #1f2933"]{fill:#e3e8ee!important}' in inside
    assert 'd="M 1.23 2 L 3 4"' in inside
    assert (image["width"], image["height"], image["alt"]) == ("486", "120", "Two & two")
    (table,) = re.findall(r"data:text/csv;charset=utf-8;base64,([^\"]+)\" download=\"table2\.csv\"", page)
    assert base64.b64decode(table) == (tmp_path / "tables/table2.csv").read_bytes()
    assert page.index('download="table2.md"') > page.index('id="comparison"')


def test_a_table_that_is_there_as_a_document_is_put_into_the_page_as_it_is(tmp_path, spec):
    page = page_of(spec, tmp_path)
    assert page.count("<!DOCTYPE html>") == page.count("<style>") == 1
    assert '<figure class="table" id="table6">' in page


def test_files_that_are_missing_or_no_tables_are_named(tmp_path, spec):
    svg = spec.figures[0].figures[0].svg
    there = spec.cost.model_copy(update={"table": svg})
    with pytest.raises(EastError, match=r"table2-multiplier\.svg is not a table"):
        page_of(spec.model_copy(update={"cost": there}), tmp_path)
    svg.unlink()
    with pytest.raises(EastError, match=r"table2-multiplier\.svg"):
        page_of(spec, tmp_path)


def test_readings_off_the_default_are_marked(tmp_path, spec):
    page = page_of(spec, tmp_path)
    assert page.count("not the default") == 1
    assert "Default: w" in page
    assert "seeds:\n  - 17\n" in page


def test_a_long_curve_is_drawn_with_few_points_and_both_ends():
    curve = Curve(epochs=tuple(range(1, 251)), values=tuple(i * 0.4 for i in range(1, 251)))
    drawn = str(curve_drawing(curve, epochs=250, highest=100))
    (points,) = re.findall('points="([^"]+)"', drawn)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) == MOST_POINTS
    assert places[0] == (2, 31.9)
    assert places[-1] == (126, 2)


def test_a_file_of_any_kind_can_be_saved(tmp_path):
    assert download(tmp_path / "a.bin", b"\x00") == {
        "uri": "data:application/octet-stream;base64,AA==",
        "name": "a.bin",
        "kind": "bin",
    }


def test_where_nothing_has_run_the_first_screen_claims_nothing(tmp_path):
    table = aggregate(grid(tmp_path, [None]), Sources(tmp_path), published_dir=PUBLISHED, partial=True)
    provenance = provenance_of([])
    said = overview([table], [], provenance)
    assert (said["finished"], said["planned"], said["lost"]) == (0, 1, "1 not finished")
    assert (said["facts"], said["headline"], said["verdicts"]) == ([], None, [])
    assert 'width="100%" height="100%"' in said["bar"]
    assert provenance_rows({"a": "b"}, provenance) == [("a", ["b"])]


def test_an_interval_is_cut_where_its_drawing_ends():
    drawn = str(interval_drawing(Interval(difference=1.0, low=-50.0, high=2.0, margin=2.0, reach=4.0)))
    assert 'd="M0,7H81"' in drawn
    assert 'cx="67.5"' in drawn
    assert 'class="band" x="27" width="54"' in drawn
