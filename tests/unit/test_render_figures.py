import hashlib
import io
import json
import re
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save_file

from east.analysis.aggregate import aggregate
from east.analysis.compare import compare_with_published as compare
from east.config import load_plan
from east.config.files import read_config
from east.config.plan import cost_plan
from east.cost.record import CostRecord
from east.render.contents import FIGURES, table_figures
from east.render.figures import (
    PlanData,
    TableData,
    axis,
    churn,
    curves,
    differences,
    draw,
    draw_plan,
    draw_table,
    style,
)
from east.render.figures.cost import printed_hours
from east.render.figures.style import look, new_figure
from east.render.palette import GRID, INK, MUTED
from east.render.schedules import DrawnSchedule
from east.render.templating import REPORT_FOLDER
from east.training.records import UpdateRecord
from tests.conftest import ROOT
from tests.unit.fake_reproduction import COSTS, tables
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, methods, seal, sources, write_curve, write_rows
from tests.unit.fake_tables import MISSING, around, beside, paper, result, summarised, sweep

HOSTILE = "<b> $x_\\frac{}\u202e & \x00"
UPDATES = ("step", "epoch", "nonzeros", "dropped", "grown", "blind_growth", "active_zeros")
COST = CostRecord(
    method="RigL",
    param_size_mb=81,
    est_total_mb=100,
    peak_memory_mb=380,
    seconds_per_step=0.4,
    hours_estimate=3.0,
)
SPEC = next(run.spec for run in load_plan() if run.spec.cycle is not None)
SCHEDULE = DrawnSchedule(panel=HOSTILE, run=SPEC)


def write_epochs(runs_dir, run, accuracies=(55, 60, 65)):
    folder = runs_dir / run
    write_curve(folder, accuracies)
    updates = [(0, 0, 100, 0, 0, 0, 0), (5, 1, 120, 40, 40, 10, 8), (15, 2, 100, 20, 20, 0, 4)]
    write_rows(folder, UpdateRecord, *(dict(zip(UPDATES, row, strict=True)) for row in updates))


def write_masks(runs_dir, run, more=()):
    """Masks after training: a stem of which half the channels have a weight, layers, and a full classifier."""
    stem, layer, classifier = np.zeros((8, 3, 3, 3), bool), np.zeros((10, 20, 1, 1), bool), np.ones((10, 5), bool)
    stem[::2, 0, 0, 0] = layer[0] = True
    masks = {"conv1.mask": stem, "stages.0.0.conv1.mask": layer, "classifier.mask": classifier}
    masks |= {f"{name}.mask": layer for name in more}
    save_file(masks, runs_dir / run / "weights.safetensors")
    if (runs_dir / run / "summary.json").exists():
        seal(runs_dir / run / "summary.json")


def make_table(runs_dir, static=(80.0, 81.0), cyclic=(85.0, DIVERGED), **keys):
    rows = grid(runs_dir, static, cyclic, static_keys={"method": HOSTILE}, **keys)
    result = aggregate(rows, sources(runs_dir), published_dir=PUBLISHED, partial=True)
    for row in result.rows:
        for seed in row.accuracy.seeds:
            write_epochs(runs_dir, seed.run)
            write_masks(runs_dir, seed.run)
    return TableData(result, sources(runs_dir))


def plan_data(**keys):
    fields = {
        "schedules": (SCHEDULE,),
        "costs": (COST, COST.model_copy(update={"method": HOSTILE})),
        "cost_plan": cost_plan(read_config()),
        "comparisons": (compare(summarised(paper("2"), around()), paper("2")),),
    }
    return PlanData(**(fields | keys))


@pytest.fixture
def data(tmp_path):
    return make_table(tmp_path)


def everything(folder):
    """Every figure there is, by name."""
    of_table = {f"table2-{name}": drawing for name, drawing in draw_table(make_table(folder)).items()}
    return of_table | draw_plan(plan_data())


def of_reproduction(folder):
    """Table 2 and the methods of the made-up reproduction: 30 epochs of each run, and masks of two."""
    read = sources(folder)
    of = [aggregate(tables(folder)[place], read, published_dir=PUBLISHED, partial=True) for place in (0, 3)]
    ended = [seed for one in of for row in one.rows for seed in row.accuracy.seeds if seed.status != "missing"]
    for place, seed in enumerate(ended):
        epochs = 30 - place % 2
        write_curve(folder / seed.run, [(seed.accuracy or 40) * epoch / (epoch + 2) for epoch in range(1, epochs + 1)])
        changes = [(0, 0, 100, 0, 0, 0, 0)]
        changes += [
            (10 * epoch, epoch, 150 - 5 * epoch, 9 - epoch, epoch, place % (epoch + 1), 4) for epoch in (2, 5, 9)
        ]
        write_rows(folder / seed.run, UpdateRecord, *(dict(zip(UPDATES, row, strict=True)) for row in changes))
    static, cyclic = (folder / "table2" / row / "seed17" for row in ("static", "cosine-10-1"))
    seal(static / "summary.json", run={"seed": 17, "sparsity": {"distribution": "uniform"}})
    flat = ({"step": step, "nonzeros": 100} for step in (0, 5))
    write_rows(static, UpdateRecord, *flat)
    for run in (static, cyclic):
        write_masks(folder, run.relative_to(folder), ["stages.0.1.conv2", "stages.2.0.conv1", "stages.odd", "head"])
    return [TableData(one, sources(folder)) for one in of]


def unfinished(folder, **keys):
    """A table of which nothing has run."""
    planned = grid(folder, [None], [None], comparable=False, **keys)
    return TableData(aggregate(planned, sources(folder), published_dir=PUBLISHED, partial=True), sources(folder))


def nothing(folder):
    """The figures of tables that have not run, of no methods, and of no plan."""
    table, read = unfinished(folder), sources(folder)
    none = TableData(aggregate(methods(folder, []), read, published_dir=PUBLISHED), read)
    drawn = {f"a-{name}": drawing for name, drawing in draw_table(table).items()}
    drawn |= {f"b-{name}": drawing for name, drawing in draw_table(none).items()}
    drawn |= draw_plan(plan_data(schedules=(), costs=(), comparisons=(compare(table.table, None),)))
    drawn["c-multiplier"] = draw("multiplier", unfinished(folder, published=None))
    return {f"nothing-{name}": drawing for name, drawing in drawn.items()}


def scenes(folder):
    """Figures with everything that a figure may show."""
    full, of_methods = of_reproduction(folder)
    drawn = {f"full-{name}": drawing for name, drawing in draw_table(full).items()}
    static = TableData(
        full.table.model_copy(update={"rows": full.table.rows[:1]}),
        full.sources,
    )
    drawn |= {f"static-{name}": draw(name, static) for name in ("curves", "multiplier", "layers")}
    with mock.patch.object(style, "MOST_PANELS", 2), mock.patch.object(churn, "_MOST_ROWS", 2):
        drawn |= {f"methods-{name}": drawing for name, drawing in draw_table(of_methods).items()}
    single = summarised(paper("5"), lambda row: [row.accuracy_mean + 1], id="mine")
    with mock.patch.object(differences, "_MOST_ROWS", 16):
        compared = (compare(full.table, paper("2")), compare(single, paper("5")))
        drawn["every-difference"] = draw("differences", plan_data(comparisons=compared))
    drawn["every-schedule"] = draw("density", plan_data(schedules=schedules()))
    records = [CostRecord.model_validate(row) for row in COSTS] + [COST.model_copy(update={"method": "EAST w/ WS"})]

    def read(path):
        return path.read_bytes().replace(b"DCTpS,~2", b"DCTpS,soon")

    drawn["every-cost"] = draw("cost", plan_data(costs=records, read=read))
    drawn["own-axis"] = draw("axis", TableData(beside(sweep()), full.sources))
    rows = [row.model_copy(update={"values": {"topology.grow": row.method}}) for row in sweep().rows[::3]]
    words = sweep(axes=("topology.grow",), rows=rows)
    drawn["own-words"] = draw("axis", TableData(words, full.sources))
    return drawn


def schedules():
    """Four panels of five schedules, with two courses of the drop fraction."""
    cycles = [
        ("A", {"multiplier": 3.0, "cycles": 1}, {}, {}),
        ("A", {"multiplier": 3.0, "cycles": 2, "cycle_length": 60.0, "length_multiplier": 2.0}, {}, {}),
        ("B", {"multiplier": 10.0, "pattern": "triangular"}, {"density": 0.0017}, {}),
        ("C", {"multiplier": 30.0}, {"density": 0.001}, {"epochs": 200, "lr_drop_epochs": ()}),
        ("D", {"multiplier": 1.5}, {"drop_fraction": 0.3, "drop_fraction_end": 0.1}, {}),
    ]
    found = []
    for panel, cycle, sparsity, training in cycles:
        update = {
            "cycle": SPEC.cycle.model_copy(update=cycle),
            "sparsity": SPEC.sparsity.model_copy(update=sparsity),
            "training": SPEC.training.model_copy(update=training),
        }
        found.append(DrawnSchedule(panel=panel, run=SPEC.model_copy(update=update)))
    return found


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def of_nothing(tmp_path_factory):
    return nothing(tmp_path_factory.mktemp("nothing"))


def root(drawing):
    return ET.fromstring(drawing.svg.decode())


def ticks(drawing, axis):
    """What stands at the ticks of all panels along an axis."""
    texts, inside = [], ""
    for kind, text in re.findall(r'<g id="([\w.]+?)_\d+">(?:\s*<!-- (.*?) -->)?', drawing.svg.decode()):
        if kind == "text" and inside == f"{axis}tick":
            texts.append(text)
        inside = inside if kind == "line2d" else kind
    return texts


def numbers(texts):
    return [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts]


def test_every_figure_of_the_list_is_drawn(drawings):
    shown = [figure for figure in FIGURES if figure.of != ("own",)]
    names = {f"table2-{figure.name}" if "grid" in figure.of else figure.name for figure in shown}
    assert drawings.keys() == names
    assert {"curves", "churn", "multiplier", "layers"} == set(table_figures("grid")) > set(table_figures("methods"))


def test_figures_are_the_same_each_time(data, drawings):
    assert not [name for name, drawing in drawings.items() if b"<dc:date>" in drawing.svg]
    for name in ("churn", "curves"):
        assert draw(name, data) == drawings[f"table2-{name}"]


GOLDEN = Path(__file__).with_name("figures.json")
"""Figure -> the beginning of its SHA-256. `python -m tests.unit.test_render_figures FOLDER` writes it, and all figures
into the folder: look at them first."""


@pytest.mark.skipif(
    f"matplotlib=={mpl.__version__} " not in (ROOT / "requirements/lock.txt").read_text(),
    reason="another version of Matplotlib draws in another way",
)
def test_nothing_of_a_figure_changes_unseen(drawings, of_nothing, tmp_path):
    """Colours, markers, widths, positions: what no other test would name."""
    assert digests(drawings, of_nothing, scenes(tmp_path)) == json.loads(GOLDEN.read_text())


def digests(drawings, of_nothing, scenes):
    shown = {name: drawing.svg + drawing.alt.encode() for name, drawing in (drawings | of_nothing | scenes).items()}
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in shown.items()}


def test_every_figure_says_in_words_what_it_shows(drawings):
    assert len({drawing.alt for drawing in drawings.values()}) == len(drawings)
    for drawing in drawings.values():
        assert root(drawing).find(".//{*}description").text == drawing.alt
        image = Image.open(io.BytesIO(drawing.png))
        assert image.text["Description"] == drawing.alt
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
        assert drawing.alt.endswith(".")
        assert not set("\u202e\x00") & set(drawing.svg.decode())


def test_figures_fit_a_paper(drawings):
    for drawing in drawings.values():
        assert root(drawing).get("width") == "486pt"  # 6.75 inches
        assert float(root(drawing).get("height").removesuffix("pt")) < 9 * 72


def test_the_style_file_has_the_colours_of_the_palette():
    style = mpl.rc_params_from_file(REPORT_FOLDER / "figures.mplstyle", use_default_template=False)
    colours = {str(value) for key, value in style.items() if "color" in key and value != "none"}
    assert colours == {INK, MUTED, GRID}


def test_settings_of_matplotlib_neither_change_nor_show(tmp_path, data):
    before = dict(mpl.rcParams)
    expected = draw("multiplier", data).svg
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert draw("multiplier", data).svg == expected


def test_series_differ_without_colour():
    looks = [look(index) for index in range(24)]
    assert len({(one.color, str(one.dashes), one.marker) for one in looks}) == 24
    first = looks[:6]
    assert len({one.marker for one in first}) == 6
    assert all(one.dashes != other.dashes for one, other in pairwise(first))


def test_curves_differ_with_what_was_measured(tmp_path, data):
    before = draw("curves", data)
    assert "1 diverged run" in before.alt
    text = before.svg
    diverged = data.table.rows[1].accuracy.seeds[1].run
    write_curve(tmp_path / diverged, [50, 10])
    assert draw("curves", replace(data, sources=sources(tmp_path))).svg != text


def test_the_first_tenth_of_a_training_does_not_flatten_its_curve(tmp_path, data):
    for row in data.table.rows:
        for seed in row.accuracy.seeds:
            write_epochs(tmp_path, seed.run, [10, *[50] * 8, 80])
    drawn = numbers(ticks(draw("curves", replace(data, sources=sources(tmp_path))), "y"))
    assert 45 <= min(drawn) <= 60


@pytest.mark.parametrize(
    ("multipliers", "panels", "columns"),
    [
        ({"cosine": [3, 7, 10, 30]}, 4, 4),
        ({"cosine": [3, 5, 7, 10, 30]}, 5, 3),
        ({"cosine": [3], "triangular": [3]}, 2, 1),
        ({"cosine": [3, 10], "triangular": [3]}, 3, 3),
    ],
)
def test_panels_of_a_pattern_stand_in_a_row_where_all_patterns_have_as_many(multipliers, panels, columns):
    first, *_ = paper("2").rows
    settings = [(pattern, multiplier) for pattern, each in multipliers.items() for multiplier in each]
    rows = [result(first, [80.0], None, pattern=pattern, multiplier=multiplier) for pattern, multiplier in settings]
    assert curves._columns(summarised(paper("2"), around(), rows=tuple(rows)), panels) == columns


def test_a_method_on_a_single_network_goes_by_its_name(tmp_path):
    table = aggregate(methods(tmp_path, [80.0]), sources(tmp_path), published_dir=PUBLISHED)
    assert churn._name(table.rows[0], table) == "RigL"


@pytest.mark.parametrize(("seeds", "bands"), [(1, 0), (2, 2)])
def test_a_band_needs_two_seeds(tmp_path, seeds, bands):
    drawing = draw("curves", make_table(tmp_path, [80.0] * seeds, [81.0] * seeds))
    ids = [str(group.get("id")) for group in root(drawing).iter()]
    assert sum(name.startswith("FillBetweenPolyCollection") for name in ids) == bands


def test_the_parts_of_a_network_are_named_under_its_layers(drawings):
    assert ticks(drawings["table2-layers"], "x") == ["stem", "stage 1", "fc"] * 2
    # 4 of 8 channels, 1 of 10 and 10 of 10.
    assert drawings["table2-layers"].alt.count("54 % of all output channels") == 2


def test_runs_without_files_and_empty_tables_still_give_figures_that_say_so(of_nothing):
    assert all(len(drawing.png) > 500 for drawing in of_nothing.values())
    says = {name: drawing.alt for name, drawing in of_nothing.items()}
    for name in ("a-curves", "a-churn", "a-layers", "a-multiplier", "b-curves", "b-churn", "differences"):
        assert re.search(r"\b([Nn]o|not)\b", says[f"nothing-{name}"]), name


def test_without_a_comparison_no_differences_are_drawn(tmp_path):
    assert draw_plan(plan_data(comparisons=None)).keys() == {"density", "cost"}


def test_a_cost_that_was_not_timed_is_drawn_without_a_time(tmp_path):
    untimed = COST.model_copy(update={"seconds_per_step": None, "peak_memory_mb": None, "hours_estimate": None})
    drawing = draw("cost", plan_data(costs=(untimed,)))
    assert "100.00 MB" in drawing.alt
    assert "s a step" not in drawing.alt


@pytest.mark.parametrize(
    ("text", "hours"), [("<1", (1, True)), ("~2", (2, False)), ("1.5", (1.5, False)), ("", (0, False))]
)
def test_printed_times_are_read_as_bounds_or_numbers(text, hours):
    assert printed_hours(text) == hours


def test_a_figure_of_many_schedules_shows_some_and_says_so(monkeypatch):
    monkeypatch.setattr(style, "MOST_PANELS", 4)
    schedules = [SCHEDULE.model_copy(update={"panel": str(i)}) for i in range(6)]
    drawing = draw("density", plan_data(schedules=schedules))
    groups = {str(group.get("id")) for group in root(drawing).iter()}
    # The drop fraction has a panel of its own.
    assert len([name for name in groups if name.startswith("axes_")]) == 4 + 1
    assert "2 more panels" in drawing.svg.decode()


def test_schedules_are_drawn_between_their_densities(tmp_path):
    drawing = draw("density", plan_data())
    assert "between 0.0005 and 0.0015" in drawing.alt
    assert "from 0.5 to 0.005" in drawing.alt


def test_the_forest_plot_counts_the_verdicts_and_leaves_out_what_cannot_be_compared(tmp_path):
    close = compare(summarised(paper("2"), around(0.1, 0.05)), paper("2"))
    far = compare(summarised(paper("3"), lambda row: [MISSING, row.accuracy_mean - 9]), paper("3"))
    elsewhere = compare(summarised(paper("4"), around(), comparable=False), paper("4"))
    alt = draw("differences", plan_data(comparisons=(close, far, elsewhere))).alt
    assert "Table 2: 17 equivalent, mean difference +0.10 points." in alt
    assert "Table 3: 17 too few seeds." in alt
    assert "Table 4" not in alt


def test_a_few_wild_rows_do_not_set_the_scale_of_the_forest_plot(tmp_path):
    wild = summarised(paper("2"), lambda row: around(0.0, 40.0 if row.pattern is None else 0.05)(row))
    drawing = draw("differences", plan_data(comparisons=(compare(wild, paper("2")),)))
    assert max(numbers(ticks(drawing, "x"))) <= 3


def test_rows_of_one_table_only_stand_beside_their_neighbours(tmp_path):
    comparisons = [compare(summarised(paper(number), around()), paper(number)) for number in "25"]
    names = ticks(draw("differences", plan_data(comparisons=comparisons)), "y")
    assert names.index("Cosine, 30×, 3 cycles, 1×") < names.index("Triangular, 3×, 1 cycle")


def test_an_empty_figure_is_no_larger_than_asked_for():
    with new_figure(3.25, 2) as figure:
        assert tuple(figure.get_size_inches()) == (3.25, 2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        every = (everything(Path(one)), nothing(Path(other) / "nothing"), scenes(Path(other)))
        for name, drawing in (every[0] | every[1] | every[2]).items():
            Path(sys.argv[1], f"{name}.png").write_bytes(drawing.png)
        GOLDEN.write_text(json.dumps(digests(*every), indent=1) + "\n")


def test_a_legend_of_long_labels_stays_within_its_figure():
    with style.new_figure(style.FULL, 2.7) as figure:
        figure.subplots()
        looks = style.Look(MUTED, "-", "o")
        style.legend(figure, [style.line_handle(f"a method with a long name {number}", looks) for number in range(7)])
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width


# An axis of a table's own


def table_of(**columns):
    rows = [SimpleNamespace(values=dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return SimpleNamespace(axes=tuple(columns), rows=rows)


def test_the_axis_is_the_first_on_which_numbers_differ():
    assert axis._chosen(table_of(width=[4, 4], rule=["a", "b"], density=[0.1, 0.2])) == ("density", True)
    assert axis._chosen(table_of(rule=["a", "b"], density=[0.1, None])) == ("rule", False)


@pytest.mark.parametrize(
    ("numbers", "scale"),
    [([1, axis._WIDE], "log"), ([1, 0.9 * axis._WIDE], "linear"), ([0, 5], "linear"), ([-1, 5], "linear")],
)
def test_numbers_that_lie_far_apart_stand_on_a_logarithmic_axis(numbers, scale):
    axes = Figure().subplots()
    axis._scale(axes, numbers)
    assert axes.get_xscale() == scale
    assert axes.get_xticks().tolist() == numbers
