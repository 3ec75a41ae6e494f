import hashlib
import io
import json
import re
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from east.analysis.aggregate import aggregate
from east.analysis.compare import compare_with_paper as compare
from east.config import load_plan
from east.config.files import read_config
from east.config.plan import cost_plan
from east.cost.record import CostRecord
from east.render.contents import FIGURES, grid_figures, methods_figures
from east.render.figures import PlanData, TableData, draw, draw_plan, draw_table
from east.render.figures.cost import printed_hours
from east.render.figures.style import MOST_PANELS, look, new_figure
from east.render.palette import GRID, INK, MUTED
from east.render.schedules import DrawnSchedule
from east.render.templating import REPORT_FOLDER
from east.training.records import UpdateRecord
from tests.conftest import ROOT
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, methods, seal, sources, write_curve, write_rows
from tests.unit.fake_tables import MISSING, around, paper, summarised

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


def write_masks(runs_dir, run):
    """Masks after training: a stem of which half the channels have a weight, one layer, and a full classifier."""
    stem, layer, classifier = np.zeros((8, 3, 3, 3), bool), np.zeros((10, 20, 1, 1), bool), np.ones((10, 5), bool)
    stem[::2, 0, 0, 0] = layer[0] = True
    masks = {"conv1.mask": stem, "stages.0.0.conv1.mask": layer, "classifier.mask": classifier}
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


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("figures"))


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
    names = {f"table2-{figure.name}" if "grid" in figure.of else figure.name for figure in FIGURES}
    assert drawings.keys() == names
    assert {"curves", "churn", "multiplier", "layers"} == set(grid_figures()) > set(methods_figures())


def test_figures_are_the_same_each_time(tmp_path, drawings):
    for name, again in everything(tmp_path).items():
        assert "<dc:date>" not in drawings[name].svg.decode()
        assert drawings[name].svg == again.svg
        assert drawings[name].png == again.png


GOLDEN = Path(__file__).with_name("figures.json")
"""Figure -> the beginning of its SHA-256, written by `python -m tests.unit.test_render_figures`. Look at them first."""


@pytest.mark.skipif(
    f"matplotlib=={mpl.__version__} " not in (ROOT / "requirements/lock.txt").read_text(),
    reason="another version of Matplotlib draws in another way",
)
def test_nothing_of_a_figure_changes_unseen(drawings):
    """Colours, markers, widths, positions: what no other test would name."""
    assert digests(drawings) == json.loads(GOLDEN.read_text())


def digests(drawings):
    shown = {name: drawing.svg + drawing.alt.encode() for name, drawing in drawings.items()}
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in shown.items()}


def test_every_figure_says_in_words_what_it_shows(drawings):
    assert len({drawing.alt for drawing in drawings.values()}) == len(FIGURES)
    for drawing in drawings.values():
        assert root(drawing).find(".//{*}description").text == drawing.alt
        assert Image.open(io.BytesIO(drawing.png)).text["Description"] == drawing.alt
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


@pytest.mark.parametrize(("seeds", "bands"), [(1, 0), (2, 2)])
def test_a_band_needs_two_seeds(tmp_path, seeds, bands):
    drawing = draw("curves", make_table(tmp_path, [80.0] * seeds, [81.0] * seeds))
    ids = [str(group.get("id")) for group in root(drawing).iter()]
    assert sum(name.startswith("FillBetweenPolyCollection") for name in ids) == bands


def test_the_parts_of_a_network_are_named_under_its_layers(drawings):
    assert ticks(drawings["table2-layers"], "x") == ["stem", "stage 1", "fc"] * 2
    # 4 of 8 channels, 1 of 10 and 10 of 10.
    assert drawings["table2-layers"].alt.count("54 % of all output channels") == 2


def test_runs_without_files_and_empty_tables_still_give_figures_that_say_so(tmp_path):
    unfinished = TableData(
        aggregate(
            grid(tmp_path, [None], [None], comparable=False), sources(tmp_path), published_dir=PUBLISHED, partial=True
        ),
        sources(tmp_path),
    )
    none = sources(tmp_path)
    nothing = TableData(aggregate(methods(tmp_path, []), none, published_dir=PUBLISHED), none)
    drawn = {f"a-{name}": drawing for name, drawing in draw_table(unfinished).items()}
    drawn |= {f"b-{name}": drawing for name, drawing in draw_table(nothing).items()}
    drawn |= draw_plan(plan_data(schedules=(), costs=(), comparisons=(compare(unfinished.table, None),)))
    assert all(len(drawing.png) > 500 for drawing in drawn.values())
    says = {name: drawing.alt for name, drawing in drawn.items()}
    for name in ("a-curves", "a-churn", "a-layers", "a-multiplier", "b-curves", "b-churn", "differences"):
        assert re.search(r"\b([Nn]o|not)\b", says[name]), name


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


def test_a_figure_of_hundreds_of_schedules_shows_some_and_says_so(tmp_path):
    schedules = [SCHEDULE.model_copy(update={"panel": str(i)}) for i in range(MOST_PANELS + 2)]
    drawing = draw("density", plan_data(schedules=schedules))
    groups = {str(group.get("id")) for group in root(drawing).iter()}
    # The drop fraction has a panel of its own.
    assert len([name for name in groups if name.startswith("axes_")]) == MOST_PANELS + 1
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
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(digests(everything(Path(folder))), indent=1) + "\n")
