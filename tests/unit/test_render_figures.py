import xml.etree.ElementTree as ET
from itertools import pairwise

import matplotlib as mpl
import pytest
from fake_runs import DIVERGED, PUBLISHED, grid, methods, write_curve, write_rows
from fake_tables import MISSING, around, paper, summarised
from PIL import Image

from east.analysis.aggregate import aggregate
from east.analysis.compare import compare
from east.analysis.layers import LayerMask
from east.analysis.published import PublishedCost
from east.render.cost import CostRecord
from east.render.figures import (
    Line,
    SchedulePanel,
    accuracy_by_multiplier,
    accuracy_curves,
    density_schedules,
    differences_from_the_paper,
    layer_densities,
    mask_churn,
    time_against_memory,
)
from east.render.figures.cost import printed_hours
from east.render.figures.style import MOST_PANELS, look, new_figure
from east.render.palette import GRID, INK, MUTED
from east.render.templating import REPORT_FOLDER
from east.training.records import UpdateRecord

HOSTILE = "<b> $x_\\frac{}\u202e & \x00"
UPDATES = ("step", "epoch", "nonzeros", "dropped", "grown", "blind_growth", "active_zeros")
LAYER = LayerMask(name="conv1", weights=100, start=5, peak=50, end=5, channels=10, connected_start=4.2, connected_end=3)
COST = CostRecord(
    method="RigL",
    param_size_mb=81,
    est_total_mb=100,
    peak_memory_mb=380,
    seconds_per_step=0.4,
    hours_estimate=3.0,
)


def write_epochs(runs_dir, run, epochs=3, steps=10):
    folder = runs_dir / run
    write_curve(folder, [50 + 5 * epoch for epoch in range(1, epochs + 1)], steps)
    updates = [(0, 0, 100, 0, 0, 0, 0), (5, 1, 100, 40, 40, 10, 8), (15, 2, 100, 20, 20, 0, 4)]
    write_rows(folder, UpdateRecord, *(dict(zip(UPDATES, row, strict=True)) for row in updates))


def make_table(runs_dir):
    rows = grid(runs_dir, [80.0, 81.0], [85.0, DIVERGED], static_keys={"method": HOSTILE})
    result = aggregate(rows, runs_dir, published_dir=PUBLISHED)
    for row in result.rows:
        for seed in row.accuracy.seeds:
            write_epochs(runs_dir, seed.run)
    return result


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return everything(make_table(folder), folder, folder)


def everything(table, runs_dir, folder):
    """Every figure there is, of one table."""
    compared = compare(table, paper("2"))
    return [
        accuracy_curves(table, runs_dir, folder / "curves"),
        mask_churn(table, runs_dir, folder / "churn"),
        accuracy_by_multiplier(table, folder / "multiplier"),
        layer_densities(table, {seed.run: [LAYER] for row in table.rows for seed in row.accuracy.seeds}, folder / "l"),
        density_schedules(
            [SchedulePanel(HOSTILE, [Line(HOSTILE, [0, 1], [0.0005, 0.005])])],
            [Line(HOSTILE, [0, 1], [0.5, 0.005])],
            folder / "density",
        ),
        time_against_memory(
            [COST, COST.model_copy(update={"method": HOSTILE})],
            [PublishedCost(method="RigL", train_time="<1", param_size_mb=81, est_total_mb=100)],
            folder / "cost",
            setting=HOSTILE,
        ),
        differences_from_the_paper([compared], folder / "differences"),
    ]


def test_every_figure_is_a_png_and_an_svg_that_are_the_same_each_time(tmp_path, drawings):
    for drawing, again in zip(drawings, everything(make_table(tmp_path), tmp_path, tmp_path), strict=True):
        assert drawing.png.read_bytes().startswith(b"\x89PNG")
        assert ET.fromstring(drawing.svg.read_text()).tag.endswith("svg")
        assert "<dc:date>" not in drawing.svg.read_text()
        assert drawing.svg.read_bytes() == again.svg.read_bytes()
        assert drawing.png.read_bytes() == again.png.read_bytes()


def test_every_figure_says_in_words_what_it_shows(drawings):
    assert len({drawing.alt for drawing in drawings}) == 7
    for drawing in drawings:
        assert ET.fromstring(drawing.svg.read_text()).find(".//{*}description").text == drawing.alt
        assert Image.open(drawing.png).text["Description"] == drawing.alt
        assert drawing.alt.endswith(".")
        assert not set("\u202e\x00") & set(drawing.svg.read_text())


def test_figures_fit_a_paper(drawings):
    for drawing in drawings:
        root = ET.fromstring(drawing.svg.read_text())
        assert root.get("width") == "486pt"  # 6.75 inches
        assert float(root.get("height").removesuffix("pt")) < 9 * 72


def test_the_style_file_has_the_colours_of_the_palette():
    style = mpl.rc_params_from_file(REPORT_FOLDER / "figures.mplstyle", use_default_template=False)
    colours = {str(value) for key, value in style.items() if "color" in key and value != "none"}
    assert colours == {INK, MUTED, GRID}


def test_figures_do_not_change_the_settings_of_matplotlib(tmp_path, table):
    before = dict(mpl.rcParams)
    accuracy_by_multiplier(table, tmp_path / "figure")
    assert dict(mpl.rcParams) == before


def test_the_users_own_settings_do_not_show(tmp_path, table):
    before = accuracy_by_multiplier(table, tmp_path / "before").svg.read_bytes()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert accuracy_by_multiplier(table, tmp_path / "after").svg.read_bytes() == before


def test_series_differ_without_colour():
    looks = [look(index) for index in range(24)]
    assert len({(one.color, str(one.dashes), one.marker) for one in looks}) == 24
    first = looks[:6]
    assert len({one.marker for one in first}) == 6
    assert all(one.dashes != other.dashes for one, other in pairwise(first))


def test_curves_differ_with_what_was_measured(tmp_path, table):
    before = accuracy_curves(table, tmp_path, tmp_path / "figure").svg.read_text()
    diverged = table.rows[1].accuracy.seeds[1].run
    write_curve(tmp_path / diverged, [50, 10])
    assert accuracy_curves(table, tmp_path, tmp_path / "figure").svg.read_text() != before


def test_diverged_runs_are_told_in_words_too(tmp_path, table):
    assert "1 diverged run is drawn too." in accuracy_curves(table, tmp_path, tmp_path / "figure").alt


def test_a_single_seed_has_no_band(tmp_path):
    single = aggregate(grid(tmp_path, [80.0], [81.0]), tmp_path, published_dir=PUBLISHED)
    pair = aggregate(grid(tmp_path / "2", [80.0, 80.0], [81.0, 81.0]), tmp_path / "2", published_dir=PUBLISHED)
    bands = []
    for runs_dir, table in ((tmp_path, single), (tmp_path / "2", pair)):
        for row in table.rows:
            for seed in row.accuracy.seeds:
                write_epochs(runs_dir, seed.run)
        drawing = accuracy_curves(table, runs_dir, runs_dir / "figure")
        ids = [str(group.get("id")) for group in ET.fromstring(drawing.svg.read_text()).iter()]
        bands.append(sum(name.startswith("FillBetweenPolyCollection") for name in ids))
    assert bands == [0, 2]


def test_runs_without_files_and_empty_tables_still_give_figures_that_say_so(tmp_path):
    partial = aggregate(
        grid(tmp_path, [None], [None, 80.0], comparable=False), tmp_path, published_dir=PUBLISHED, partial=True
    )
    nothing = aggregate(methods(tmp_path, []), tmp_path, published_dir=PUBLISHED)
    for drawing, words in (
        (accuracy_curves(partial, tmp_path, tmp_path / "a"), "No epochs are recorded."),
        (mask_churn(partial, tmp_path, tmp_path / "b"), "No mask updates are recorded."),
        (layer_densities(partial, {}, tmp_path / "c"), "No weights are on disk."),
        (accuracy_curves(nothing, tmp_path, tmp_path / "d"), "No epochs are recorded."),
        (mask_churn(nothing, tmp_path, tmp_path / "e"), "No mask updates are recorded."),
        (differences_from_the_paper([compare(partial, None)], tmp_path / "f"), "so no difference is drawn."),
    ):
        assert drawing.alt.endswith(words)
        assert drawing.png.stat().st_size > 500
    assert density_schedules([], [], tmp_path / "g").svg.exists()
    assert time_against_memory([], [], tmp_path / "h", setting="nothing").svg.exists()
    assert accuracy_by_multiplier(partial, tmp_path / "i").svg.exists()


def test_a_cost_that_was_not_timed_is_drawn_without_a_time(tmp_path):
    untimed = COST.model_copy(update={"seconds_per_step": None, "peak_memory_mb": None, "hours_estimate": None})
    drawing = time_against_memory([untimed], [], tmp_path / "figure", setting="ResNet-34")
    assert drawing.alt.endswith("RigL: 100.00 MB counted.")
    assert "Nothing was timed" in drawing.svg.read_text()


@pytest.mark.parametrize(
    ("text", "hours"), [("<1", (1, True)), ("~2", (2, False)), ("1.5", (1.5, False)), ("", (0, False))]
)
def test_printed_times_are_read_as_bounds_or_numbers(text, hours):
    assert printed_hours(text) == hours


def test_a_figure_of_hundreds_of_schedules_shows_some_and_says_so(tmp_path):
    panels = [SchedulePanel(str(i), [Line("a", [0, 1], [0.001, 0.002])]) for i in range(MOST_PANELS + 2)]
    drawing = density_schedules(panels, [], tmp_path / "figure")
    groups = {str(group.get("id")) for group in ET.fromstring(drawing.svg.read_text()).iter()}
    assert len([name for name in groups if name.startswith("axes_")]) == MOST_PANELS
    assert "2 more panels are left out." in drawing.svg.read_text()


def test_the_forest_plot_counts_the_verdicts_and_leaves_out_what_cannot_be_compared(tmp_path):
    close = compare(summarised(paper("2"), around(0.1, 0.05)), paper("2"))
    far = compare(summarised(paper("3"), lambda row: [MISSING, row.accuracy_mean - 9]), paper("3"))
    elsewhere = compare(summarised(paper("4"), around(), comparable=False), paper("4"))
    alt = differences_from_the_paper([close, far, elsewhere], tmp_path / "figure").alt
    assert "Table 2: 17 equivalent, mean difference +0.10 points." in alt
    assert "Table 3: 17 too few seeds." in alt
    assert "Table 4" not in alt


def test_rows_of_one_table_only_stand_beside_their_neighbours(tmp_path):
    comparisons = [compare(summarised(paper(number), around()), paper(number)) for number in "25"]
    text = differences_from_the_paper(comparisons, tmp_path / "figure").svg.read_text()
    names = [line for line in text.splitlines() if "<!-- Cosine" in line or "<!-- Triangular" in line]
    assert names.index("      <!-- Cosine, 30×, 3 cycles, 1× -->") < names.index(
        "      <!-- Triangular, 3×, 1 cycle -->"
    )


def test_an_empty_figure_is_no_larger_than_asked_for():
    with new_figure(3.25, 2) as figure:
        assert tuple(figure.get_size_inches()) == (3.25, 2)
