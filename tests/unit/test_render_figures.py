import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from fake_runs import DIVERGED, PUBLISHED, grid, methods

from east.analysis.aggregate import aggregate
from east.render.figures import Series, accuracy_by_multiplier, accuracy_curves, density_schedules


@pytest.fixture
def table(tmp_path):
    result = aggregate(
        grid(tmp_path, [80.0, 81.0], [85.0, DIVERGED], cyclic_keys={"method": "<b> $x_"}),
        tmp_path,
        published_dir=PUBLISHED,
    )
    for row in result.rows:
        for seed in row.accuracy.seeds:
            path = tmp_path / seed.run / "metrics.csv"
            path.write_text("epoch,test_acc\n1,50\n2,60\n3,70\n")
    return result


def test_every_figure_is_a_png_and_a_reproducible_svg(tmp_path, table):
    for draw in (
        lambda stem: accuracy_curves(table, tmp_path, stem),
        lambda stem: accuracy_by_multiplier(table, stem),
        lambda stem: density_schedules([Series("<i> $a_", [0, 1], [0.0005, 0.005])], stem),
    ):
        png, svg = draw(tmp_path / "first")
        _, again = draw(tmp_path / "second")
        assert png.read_bytes().startswith(b"\x89PNG")
        assert svg.read_bytes() == again.read_bytes()
        assert ET.fromstring(svg.read_text()).tag.endswith("svg")
        assert "<dc:date>" not in svg.read_text()


def test_figures_do_not_change_the_settings_of_matplotlib(tmp_path, table):
    before = dict(mpl.rcParams)
    accuracy_by_multiplier(table, tmp_path / "figure")
    assert dict(mpl.rcParams) == before


def test_curves_differ_with_what_was_measured(tmp_path, table):
    _, svg = accuracy_curves(table, tmp_path, tmp_path / "figure")
    before = svg.read_text()
    run = table.rows[1].accuracy.seeds[1].run
    (tmp_path / run / "metrics.csv").write_text("epoch,test_acc\n1,50\n2,10\n")
    accuracy_curves(table, tmp_path, tmp_path / "figure")
    assert svg.read_text() != before


def test_runs_without_epochs_and_empty_tables_still_give_a_figure(tmp_path):
    partial = aggregate(grid(tmp_path, [None]), tmp_path, published_dir=PUBLISHED, partial=True)
    nothing = aggregate(methods(tmp_path, []), tmp_path, published_dir=PUBLISHED)
    for path in (
        *accuracy_curves(partial, tmp_path, tmp_path / "a"),
        *accuracy_by_multiplier(partial, tmp_path / "b"),
        *accuracy_curves(nothing, tmp_path, tmp_path / "c"),
        *density_schedules([], tmp_path / "d"),
    ):
        assert path.stat().st_size > 500


def test_seventeen_rows_are_spread_over_panels(tmp_path):
    series = [Series(f"schedule {index}", [0, 1], [0.001, 0.002]) for index in range(17)]
    _, svg = density_schedules(series, tmp_path / "figure")
    axes = {
        group.get("id") for group in ET.fromstring(svg.read_text()).iter() if str(group.get("id")).startswith("axes_")
    }
    assert len(axes) == 6
