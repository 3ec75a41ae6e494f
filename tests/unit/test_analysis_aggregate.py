import json

import pytest

from east import REVISION
from east.analysis.aggregate import aggregate, mean_and_std, published_value, read_table, table_json
from east.analysis.published import read_published_grid
from east.analysis.sources import Sources
from east.config.tables import Summarising
from east.errors import EastError
from tests.unit.fake_report import write_derived
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, methods, sources, write_run


def test_means_spreads_changes_and_differences_by_hand(tmp_path):
    result = aggregate(
        grid(tmp_path, [80.0, 82.0, 81.0], [85.0, 86.0, 88.0]), sources(tmp_path), published_dir=PUBLISHED
    )
    static, cyclic = result.rows
    assert (static.accuracy.mean, static.accuracy.std) == (81.0, 1.0)
    assert static.change is None
    assert static.difference == pytest.approx(81.0 - 81.47)
    # mean 259 / 3; squared deviations 16/9 + 1/9 + 25/9 = 42/9, over n - 1 = 2
    assert cyclic.accuracy.mean == pytest.approx(259 / 3)
    assert cyclic.accuracy.std == pytest.approx((42 / 9 / 2) ** 0.5)
    assert cyclic.change == pytest.approx(259 / 3 - 81)
    assert cyclic.published is not None
    assert (cyclic.published.mean, cyclic.published.std, cyclic.published.change) == (85.34, 0.18, 3.9)
    assert cyclic.difference == pytest.approx(259 / 3 - 85.34)
    assert result.published_table == "2"


def test_the_population_spread_divides_by_n_and_one_seed_has_none(tmp_path):
    table = grid(tmp_path, [80.0, 82.0], summarising=Summarising(spread="population"))
    assert aggregate(table, sources(tmp_path), published_dir=PUBLISHED).rows[0].accuracy.std == 1.0
    assert mean_and_std([5.0], "sample") == mean_and_std([5.0], "population") == (5.0, None)
    assert mean_and_std([], "sample") == (None, None)


def test_best_validation_reads_the_other_accuracy(tmp_path):
    table = grid(tmp_path, [80.0], summarising=Summarising(accuracy="best_validation"))
    assert aggregate(table, sources(tmp_path), published_dir=PUBLISHED).rows[0].accuracy.mean == 79.0
    write_run(tmp_path, "table2/static/seed17", 80.0, best_test_accuracy=None)
    with pytest.raises(EastError, match="table2/static/seed17 has no test accuracy at a best validation epoch"):
        aggregate(table, sources(tmp_path), published_dir=PUBLISHED)


def test_diverged_seeds_are_shown_and_left_out_of_the_mean(tmp_path):
    result = aggregate(grid(tmp_path, [80.0, DIVERGED, 84.0]), sources(tmp_path), published_dir=PUBLISHED)
    accuracy = result.rows[0].accuracy
    assert (accuracy.mean, accuracy.used, accuracy.planned, accuracy.complete) == (82.0, 2, 3, False)
    assert [(seed.seed, seed.status, seed.accuracy) for seed in accuracy.seeds] == [
        (17, "finished", 80.0),
        (18, "diverged", None),
        (19, "finished", 84.0),
    ]
    assert accuracy.seeds[1].diverged_at_epoch == 7


def test_a_static_row_without_numbers_leaves_changes_open(tmp_path):
    result = aggregate(grid(tmp_path, [DIVERGED], [85.0]), sources(tmp_path), published_dir=PUBLISHED)
    assert result.rows[0].accuracy.mean is None
    assert result.rows[1].change is None
    assert result.rows[1].difference == pytest.approx(85.0 - 85.34)


def test_every_missing_run_is_named_unless_a_partial_table_is_asked_for(tmp_path):
    table = grid(tmp_path, [80.0, None, None])
    with pytest.raises(EastError, match=r"2 runs are .*: table2/static/seed18, table2/static/seed19\."):
        aggregate(table, sources(tmp_path), published_dir=PUBLISHED)
    accuracy = aggregate(table, sources(tmp_path), published_dir=PUBLISHED, partial=True).rows[0].accuracy
    assert [seed.status for seed in accuracy.seeds] == ["finished", "missing", "missing"]
    assert (accuracy.mean, accuracy.used) == (80.0, 1)


@pytest.mark.parametrize("partial", [False, True])
def test_every_stale_run_is_named(tmp_path, partial):
    table = grid(tmp_path, [80.0, 81.0], [82.0, 83.0])
    stale = ["table2/static/seed18", "table2/cosine-m10-n2-g2/seed17"]
    for run in stale:
        write_run(tmp_path, run, 99.0, fingerprint="another")
    with pytest.raises(EastError) as caught:
        aggregate(table, sources(tmp_path), published_dir=PUBLISHED, partial=partial)
    message = str(caught.value)
    assert all(run in message for run in stale)
    assert "table2/static/seed17" not in message


def test_runs_of_another_revision_are_named_with_the_reason(tmp_path):
    table = grid(tmp_path, [80.0, 81.0], [82.0, 83.0])
    old, other = "table2/static/seed18", "table2/cosine-m10-n2-g2/seed17"
    write_run(tmp_path, old, 99.0, fingerprint="another", run={"revision": 2})
    write_run(tmp_path, other, 99.0, fingerprint="another", run={"revision": REVISION})
    with pytest.raises(EastError) as caught:
        aggregate(table, sources(tmp_path), published_dir=PUBLISHED)
    message = str(caught.value)
    assert f"trained under revision 2; this is {REVISION}: the arithmetic changed ({old})." in message
    assert f"trained with other settings than the plan's ({other})." in message


def test_rows_that_the_paper_lacks_have_nothing_beside_them(tmp_path):
    table = grid(tmp_path, [80.0], [85.0], cyclic_keys={"multiplier": 7.0})
    row = aggregate(table, sources(tmp_path), published_dir=PUBLISHED).rows[1]
    assert row.published is None
    assert row.difference is None
    alone = aggregate(grid(tmp_path, [80.0], published=None), sources(tmp_path), published_dir=PUBLISHED)
    assert alone.published_table is None


def test_only_the_misprinted_change_contradicts_its_means():
    """Table 3 prints +4.4 for 43.83 against 38.44; every other printed change agrees with the printed means."""
    grids = [read_published_grid(PUBLISHED / f"table{number}.csv") for number in "2345"]
    values = [(grid.number, published_value(row, grid.static)) for grid in grids for row in grid.rows]
    contradictions = [
        (number, value.mean, value.change, round(value.change_from_means, 2))
        for number, value in values
        if value.change_contradicts_means
    ]
    assert contradictions == [("3", 43.83, 4.4, 5.39)]


def test_a_second_static_row_is_compared_with_the_first_and_with_no_printed_row(tmp_path):
    table = grid(tmp_path, [80.0], [85.0], cyclic_keys={"pattern": None, "printed": False})
    first, second = aggregate(table, sources(tmp_path), published_dir=PUBLISHED).rows
    assert first.change is None
    assert second.change == pytest.approx(5.0)
    assert first.published is not None
    assert second.published is None


def test_methods_are_summarised_and_rows_without_runs_stay(tmp_path):
    result = aggregate(methods(tmp_path, [80.0, 82.0]), sources(tmp_path), published_dir=PUBLISHED)
    assert result.rows[0].accuracy.mean == 81.0
    empty = aggregate(methods(tmp_path, [], note="Not here."), sources(tmp_path), published_dir=PUBLISHED)
    assert (empty.rows[0].accuracy.planned, empty.rows[0].accuracy.mean) == (0, None)


def test_both_kinds_of_table_survive_json(tmp_path):
    for table in (grid(tmp_path, [80.1, DIVERGED, None], [85.3]), methods(tmp_path, [80.0])):
        result = aggregate(table, sources(tmp_path), published_dir=PUBLISHED, partial=True)
        assert table_json(result).startswith(b'{\n  "kind": ')
        write_derived(tmp_path, {"aggregate/table.json": table_json(result)})
        assert read_table(tmp_path / "aggregate" / "table.json", Sources(tmp_path)) == result


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path):
    write_derived(tmp_path, {"aggregate/x.json": json.dumps({"kind": "grid"})})
    with pytest.raises(EastError, match=r"x\.json is not a summarised table"):
        read_table(tmp_path / "aggregate" / "x.json", Sources(tmp_path))
