import csv
import io

import pytest

from east.analysis.compare import compare_with_published as compare
from east.config.tables import Comparing
from east.render.evidence import FARTHEST, evidence_tables
from tests.unit.fake_runs import DIVERGED, PUBLISHED
from tests.unit.fake_tables import MISSING, around, gather, paper, summarised

HOSTILE = "\\input{/etc/passwd} <script>alert(1)</script> | *x* \u202eabc"


@pytest.fixture(scope="module")
def evidence():
    """Table 2 about as printed, Table 3 with one row of too few seeds, Table 4 run on another scale."""
    lonely = summarised(paper("3"), lambda row: [MISSING, row.accuracy_mean] if row.pattern is None else around()(row))
    elsewhere = summarised(paper("4"), around(20.0), comparable=False)
    return gather([summarised(paper("2"), around(0.1, 0.05)), lonely, elsewhere], PUBLISHED)


@pytest.fixture(scope="module")
def tables(evidence):
    return {table.name: table for table in evidence_tables(evidence)}


def records(table):
    return list(csv.DictReader(io.StringIO(table.render().csv)))


def columns(view):
    """Heading: text of each row."""
    texts = zip(*([cell.text for cell in row.cells] for row in view.rows), strict=True)
    return dict(zip((column.full_label for column in view.columns), texts, strict=True))


def test_the_data_has_every_row_of_every_table_unrounded(tables):
    rows = records(tables["comparison"])
    assert len(rows) == 3 * 17
    known = {"table": "table2", "published_table": "2", "settings": "static", "runs": "3", "missing": "0"}
    known |= {"accuracy_mean": "81.57", "accuracy_std": "0.05", "difference": "0.1", "published_accuracy_mean": "81.47"}
    known |= {"published_accuracy_std": "0.47", "published_runs": "3", "margin": "2", "level": "0.95"}
    assert known.items() <= (rows[0] | {"verdict": "equivalent"}).items()
    assert float(rows[0]["interval_low"]) < 0.1 < float(rows[0]["interval_high"])
    assert {row["verdict"] for row in rows[-17:]} == {"not comparable"}
    assert {row["p"] for row in rows[-17:]} == {""}


def test_every_table_has_a_verdict_and_those_that_can_be_compared_have_their_rows(tables):
    views = tables["comparison"].views
    assert list(views) == ["", "Table 2", "Table 3"]
    verdicts = columns(views[""])
    assert verdicts["Table"] == ("Table 2", "Table 3", "Table 4")
    assert verdicts["Verdict"] == ("Reproduced", "Undecided", "Not comparable")
    assert verdicts["Equivalent"][0] == "17"
    assert verdicts["No verdict"] == ("–", "1", "17")
    rows = columns(views["Table 3"])
    assert rows["Verdict"].count("Too few seeds") == 1
    assert rows["Verdict"][0] == "Too few seeds"
    assert rows["This run (%)"][0] == "38.44 (1 of 2 seeds)"
    assert rows["Paper (%)"][0] == "38.44 ± 0.71"
    assert rows["Interval"][0] == rows["Corrected p: no difference"][0] == "–"


def test_a_different_row_stands_out_and_opens_its_runs():
    outcomes = summarised(paper("2"), lambda row: around(-9 if row.pattern is None else 0.0)(row))
    view = evidence_tables(gather([outcomes], PUBLISHED))[0].views["Table 2"]
    (different,) = (cell for row in view.rows for cell in row.cells if cell.tone == "differs")
    assert (different.text, different.verdict) == ("Different", True)
    assert different.row == outcomes.rows[0].id


@pytest.mark.parametrize(
    ("shift", "spread", "margin", "reach"),
    [
        (0.0, 0.01, 2.0, 4.0),  # narrow intervals: twice the margin
        (3.0, 0.01, 2.0, None),  # as far as the widest interval goes
        (0.0, 90.0, 2.0, FARTHEST),  # wild seeds are cut
        (0.0, 90.0, 4.0, 16.0),  # but not within four margins
    ],
)
def test_intervals_are_drawn_on_one_scale_that_no_wild_seed_decides(shift, spread, margin, reach):
    table = summarised(paper("2"), around(shift, spread), comparing=Comparing(margin=margin))
    view = evidence_tables(gather([table], PUBLISHED))[0].views["Table 2"]
    drawn = [cell.interval for row in view.rows for cell in row.cells if cell.interval]
    widest = max(abs(end) for row in compare(table, paper("2")).rows for end in (row.test.low, row.test.high))
    assert len(drawn) == 17
    assert {interval.reach for interval in drawn} == {reach or 1.05 * widest}
    assert {interval.margin for interval in drawn} == {margin}


def test_rows_that_the_paper_prints_and_the_table_lacks_are_named():
    table = summarised(paper("2"), around())
    table = table.model_copy(update={"rows": table.rows[:-1]})
    view = evidence_tables(gather([table], PUBLISHED))[0].views["Table 2"]
    assert any("triangular, 30×, 2 cycles, 2×" in remark for remark in view.remarks)


def test_each_claim_has_a_row_for_the_paper_and_one_for_us(tables):
    claims = columns(tables["claims"].views[""])
    assert claims["Tables"] == ("Paper", "This run") * 5
    assert claims["Pairs: agree"][:6:2] == ("24 of 24", "28 of 32", "20 of 24")
    assert claims["Verdict"][0] == "Holds"
    assert [row.rule for row in tables["claims"].views[""].rows] == [False, False, *[True, False] * 4]
    rows = records(tables["claims"])
    assert [row["of"] for row in rows] == ["paper", "this run"] * 5
    assert (rows[0]["agree"], rows[0]["pairs"]) == ("24", "24")
    assert all(row["statement"] for row in rows)


def test_every_pair_behind_a_claim_is_listed_with_both_differences():
    table = summarised(paper("2"), lambda row: [row.accuracy_mean, DIVERGED])
    claims = evidence_tables(gather([table], PUBLISHED))[1]
    pairs = columns(claims.details["A density multiplier of 10× beats one of 3×."])
    assert len(pairs["Table"]) == 24
    here = dict(zip(pairs["Table"], pairs["Difference: This run"], strict=True))
    assert here["2"].endswith("(seeds missing)")
    assert here["3"] == "–"


def test_the_audit_lists_every_finding(evidence, tables):
    assert [row["finding"] for row in records(tables["audit"])] == [finding.text for finding in evidence.audit]
    assert all("=" in row["numbers"] for row in records(tables["audit"]) if row["numbers"])
    assert columns(tables["audit"].views[""])["Finding"] == tuple(finding.text for finding in evidence.audit)


def test_hostile_findings_and_claims_are_escaped_in_every_format(evidence):
    finding = evidence.audit[0].model_copy(update={"text": HOSTILE, "row": HOSTILE})
    claim = evidence.claims[0].model_copy(update={"statement": HOSTILE})
    for table in evidence_tables(evidence.model_copy(update={"audit": (finding,), "claims": (claim,)})):
        printed = table.render()
        assert "\\input" not in printed.tex
        assert "<script>" not in printed.html + printed.md
        assert "\u202e" not in printed.tex + printed.html + printed.md


def test_few_rows_have_a_rank_correlation_without_an_interval():
    table = summarised(paper("2"), around())
    table = table.model_copy(update={"rows": table.rows[:5]})
    comparison = evidence_tables(gather([table], PUBLISHED))[0]
    assert columns(comparison.views[""])["Rank correlation"] == ("1.00",)
    assert comparison.views["Table 2"].remarks[0] == "Kendall's τ of our 5 means with the paper's: 1.00 (p = 0.017)."


def test_claims_of_the_paper_alone_have_its_pairs_and_none_of_ours():
    claims = evidence_tables(gather([], PUBLISHED))[1]
    assert [len(view.rows) for view in claims.details.values()] == [24, 32, 24, 64, 6]
    ours = claims.views[""].rows[1].cells
    assert [cell.text for cell in ours] == ["", "This run", "No pairs", "–", "–", "–", "–"]
    assert ours[2].tone == "missing"


def test_without_any_table_the_files_have_their_columns():
    for table in evidence_tables(gather([], PUBLISHED)):
        assert table.render().csv.splitlines()[0] == ",".join(table.columns)
