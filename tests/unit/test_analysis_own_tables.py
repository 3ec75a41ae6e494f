"""Tables with axes of their own: their claims, their comparison, and what is printed and drawn of them."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from east.analysis.claims import check_claims, claim_rows, pairs_of, support
from east.analysis.compare import compare_with_published
from east.config.conditions import Condition
from east.config.tables import ClaimSpec, Comparing
from east.render.evidence import evidence_tables
from east.render.figures import TableData
from east.render.figures.axis import draw
from east.render.runs import RunOutcome, row_details
from east.render.tables import grid_view, render_table
from tests.unit.fake_runs import PUBLISHED
from tests.unit.fake_tables import MISSING, accuracy, beside, gather, paper, papers, sweep


def claim(name, **parameters):
    form = {"name": name, **parameters}
    return ClaimSpec(id="mine", statement="So.", source=None, form=form, tables=("tableOwn",), possibility=False)


def sides(spec, table):
    return [(pair.higher, pair.lower) for pair in pairs_of(spec, claim_rows([table], Comparing()))]


def names(*densities, method="EAST"):
    return [f"{method}, gradient, density {density}" for density in densities]


def test_an_axis_that_raises_is_tried_from_each_value_to_the_next_within_a_method():
    pairs = sides(claim("raises", axis="density"), sweep())
    of_east = [pair for pair in pairs if pair[0].startswith("EAST")]
    assert of_east == list(zip(names(0.01, 0.003), names(0.003, 0.001), strict=True))
    assert len(pairs) == 4
    assert sides(claim("lowers", axis="density"), sweep()) == [(low, high) for high, low in pairs]
    assert sides(claim("raises", axis="density", low=0.001, high=0.01), sweep())[1] == (*names(0.01), *names(0.001))


def test_a_row_that_beats_another_is_compared_at_the_same_values():
    assert sides(claim("beats", row="EAST", other="RigL"), sweep()) == list(
        zip(names(0.01, 0.003, 0.001), names(0.01, 0.003, 0.001, method="RigL"), strict=True)
    )


def test_rows_that_differ_on_an_axis_by_what_they_are_can_still_be_compared():
    table = sweep()
    rows = [
        one if one.method == "RigL" else one.model_copy(update={"values": {**one.values, "topology.grow": "random"}})
        for one in table.rows
    ]
    assert len(sides(claim("beats", row="EAST", other="RigL"), table.model_copy(update={"rows": tuple(rows)}))) == 3


def test_a_row_that_is_not_there_at_every_value_is_compared_where_it_is():
    table = sweep()
    rows = [one for one in table.rows if one.method == "RigL" or one.values["density"] == 0.003]
    fewer = table.model_copy(update={"rows": tuple(rows)})
    pair = (*names(0.003), *names(0.003, method="RigL"))
    assert sides(claim("beats", row="EAST", other="RigL"), fewer) == [pair]


def test_a_margin_counts_pairs_that_exceed_it():
    conditions = {"group": ["method=EAST"], "other": ["method=RigL"], "same": ["density"]}

    def found(margin):
        pairs = pairs_of(claim("above", **conditions, margin=margin), claim_rows([sweep()], Comparing()))
        return support(pairs, 0.95)

    assert [(found(margin).agree, found(margin).ties) for margin in (0, 1, 5, 8)] == [(3, 0), (2, 1), (1, 1), (0, 1)]
    assert (found(0).beyond_noise, found(4.95).beyond_noise) == (3, 1)
    assert found(5).effect.mean == pytest.approx((1 + 5 + 8) / 3)


def test_a_group_is_every_row_that_meets_all_conditions():
    pairs = sides(claim("above", group=["density>=0.003", "label=east"], other=["density<0.003"]), sweep())
    assert [higher for higher, _ in pairs] == [name for name in names(0.01, 0.003) for _ in range(2)]


@pytest.mark.parametrize(
    ("written", "meant", "not_meant"),
    [
        ("density<0.01", [0.003, 0], [0.01, 0.1, None, float("nan"), "much"]),
        ("n >= 2", [2, 3.5], [1]),
        ("pattern=cosine|Triangular", ["cosine", "triangular"], ["static", None]),
        ("pattern!=static", ["cosine"], ["static", None, float("nan")]),
        ("n=3", [3, 3.0], [30]),
        ("dct=true", [True], [False, 1]),
        ("dct=false", [False], [True, 0]),
        ("dct<2", [1], [True, False]),
        ("name=8.0", ["8.0", 8], ["8"]),
    ],
)
def test_conditions(written, meant, not_meant):
    condition = Condition.read(written)
    assert all(condition.holds(value) for value in meant)
    assert not any(condition.holds(value) for value in not_meant)


def test_what_a_source_prints_is_tested_beside_ours_and_called_by_its_name():
    (found,) = check_claims([claim("beats", row="EAST", other="RigL")], papers(), [beside(sweep())], Comparing())
    assert (found.published_by, len(found.published.pairs), len(found.ours.pairs)) == ("Doe et al.", 1, 3)
    (none,) = check_claims([claim("beats", row="EAST", other="RigL")], papers(), [sweep()], Comparing())
    assert none.published is None
    assert none.ours.verdict == "undecided"


def test_the_papers_claims_say_nothing_of_a_table_without_its_columns():
    evidence = gather([sweep()], PUBLISHED)
    assert {test.ours.verdict for test in evidence.claims} == {"no pairs"}
    assert evidence.claims[0].published.verdict == "holds"


def test_a_frame_of_rows_has_a_column_for_each_axis_of_any_table():
    rows = claim_rows([paper("2"), sweep()], Comparing())
    assert {"pattern", "multiplier", "method", "density", "topology.grow"} <= set(rows.columns)
    assert pd.isna(rows.loc[rows["table"] == "tableOwn", "pattern"]).all()
    assert rows["density"].dtype == float


def test_a_table_is_compared_with_its_source_and_says_so():
    compared = compare_with_published(beside(sweep()), None)
    assert (compared.source, compared.counts) == ("Doe et al.", {"equivalent": 1, "different": 1, "not comparable": 4})
    assert compared.rows[0].reason == "Not in Doe et al."
    assert compared.reading.startswith("Doe et al.'s ± is taken")
    bare = compare_with_published(beside(sweep(), std=None), None)
    assert "No spread is printed by Doe et al." in bare.rows[1].reason


def test_nothing_that_is_printed_of_it_speaks_of_the_paper():
    table = beside(sweep())
    view = grid_view(table)
    assert [column.full_label for column in view.columns][:3] == ["Method", "Growth", "Density"]
    assert "Doe et al.: Test Accuracy (%)" in [column.full_label for column in view.columns]
    assert "Doe et al., 2020, Table 1" in view.caption
    rendered = render_table(table)
    assert "paper" not in (rendered.md + rendered.tex + rendered.html).lower()
    own = ClaimSpec.model_validate(claim("raises", axis="density").model_dump())
    evidence = gather([table], PUBLISHED).model_copy(update={"claims": check_claims([own], [], [table], Comparing())})
    opened = row_details(table, defaultdict(lambda: RunOutcome(None, None)), {}, runs_dir=Path("runs"), logs_dir=None)
    assert {detail["source"] for detail in opened.values()} == {"Doe et al."}
    comparison, claims, _ = evidence_tables(evidence)
    assert "paper" not in comparison.render().md.lower()
    assert "paper" not in claims.render().md.lower()
    assert comparison.heading == "Comparison with Doe et al."


def test_changes_are_shown_against_the_reference_and_not_at_all_without_one():
    labels = [column.label for column in grid_view(sweep()).columns]
    assert "Change (%)" in labels
    assert "relative to RigL at the same values" in grid_view(sweep()).caption
    without = grid_view(sweep(reference=None))
    assert "Change (%)" not in [column.label for column in without.columns]
    assert "Change" not in without.caption


def test_the_data_have_each_axis_as_it_is_configured():
    header, first, *_ = render_table(sweep({"RigL": {1e-7: 10.0}})).csv.splitlines()
    assert "topology.grow" in header
    assert "0.0000001" in first.split(",")


@pytest.mark.parametrize(
    ("axes", "shown"),
    [(("topology.grow", "density"), "against density"), (("topology.grow",), "against growth")],
)
def test_accuracy_is_drawn_along_the_first_axis_with_numbers(axes, shown):
    table = beside(sweep(axes=axes))
    if len(axes) == 1:
        rows = [one.model_copy(update={"values": {"topology.grow": one.method}}) for one in table.rows[::3]]
        table = table.model_copy(update={"rows": tuple(rows)})
    drawn = draw(TableData(table, None))
    assert shown in drawn.alt
    assert b"<svg" in drawn.svg
    assert ("70.00 at 0.001 to 90.00 at 0.01" in drawn.alt) == (len(axes) == 2)


def test_rows_that_have_not_run_leave_the_figure_empty():
    table = sweep()
    rows = [one.model_copy(update={"accuracy": accuracy([MISSING])}) for one in table.rows]
    assert draw(TableData(table.model_copy(update={"rows": tuple(rows)}), None)).alt.endswith("No run has finished.")
