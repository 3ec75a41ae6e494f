"""Tables with axes of their own, numbers beside them, and claims: what a plan makes of them, and what it refuses."""

import pytest

from east.config import make_plan, read_config
from east.config.axes import path_of
from east.errors import EastError
from tests.unit.small_config import in_a_project

SWEEP = """tables:
  table2: null
  tableOwn:
    recipe: plain
    dataset: cifar10
    axes: [topology.grow, optimizer]
    each: {density: [0.01, 0.003]}
    reference: Static
    rows:
      - {static: true, label: Static, topology: fixed}
      - {static: true, label: RigL, changes: {optimizer: {name: adam}}}
      - {pattern: cosine, multiplier: 3, cycles: 1, label: EAST, changes: {activation: dyrelu, model: resnet50}}
methods: {rows: {RigL: null, Cyclic: null}}
"""
NUMBERS = "method,density,accuracy_mean,accuracy_std\nRigL,0.01,90.5,0.5\nEAST,0.003,92,-\n"
BESIDE = "    published: numbers.csv\n    source: {name: Doe, citation: Doe 2020, seeds: 5, spread: standard_error}\n"


@pytest.fixture
def planned(tmp_path):
    def plan(overlay=SWEEP, numbers=NUMBERS):
        def show():
            (tmp_path / "overlay.yaml").write_text(overlay)
            (tmp_path / "numbers.csv").write_text(numbers)
            return make_plan(read_config("overlay.yaml"))

        return in_a_project(show, tmp_path)

    return plan


def refused(planned, *arguments, **keys):
    with pytest.raises(EastError) as caught:
        planned(*arguments, **keys)
    return str(caught.value)


def with_numbers(text=""):
    return SWEEP.replace("    rows:\n", f"{BESIDE}{text}    rows:\n")


def test_every_row_is_run_at_every_value_and_says_what_it_has_on_each_axis(planned):
    table = planned().tables[0]
    assert table.axes == ("topology.grow", "optimizer", "density")
    assert [tuple(row.values.values()) for row in table.rows] == [
        (None, "sgd", 0.01),
        (None, "sgd", 0.003),
        ("gradient", "adam", 0.01),
        ("gradient", "adam", 0.003),
        ("gradient", "sgd", 0.01),
        ("gradient", "sgd", 0.003),
    ]
    assert len({row.id for row in table.rows}) == 6


def test_what_a_row_changes_is_in_its_runs(planned):
    plan = planned()
    specs = [plan.run(row.runs[0].id).spec for row in plan.tables[0].rows]
    assert [spec.sparsity.density for spec in specs] == [0.01, 0.003] * 3
    assert (specs[2].training.optimizer.momentum, specs[0].training.optimizer.momentum) == (0, 0.9)
    assert (specs[4].model.activation, specs[4].model.name, specs[0].model.name) == ("dyrelu", "resnet50", "resnet34")


def test_a_change_is_measured_against_the_reference_at_the_same_values(planned):
    rows = planned().tables[0].rows
    assert [row.reference for row in rows] == [None, None, rows[0].id, rows[1].id, rows[0].id, rows[1].id]


def test_keys_of_recipes_and_rules_can_be_swept(planned):
    each = SWEEP.replace("{density: [0.01, 0.003]}", "{lr: [0.1, 0.2], optimizer.momentum: [0, 0.5], topology: [set]}")
    simple = each.replace(", topology: fixed}", ", changes: {optimizer: {nesterov: false}}}")
    simple = simple.replace("{optimizer: {name: adam}}", "{optimizer: {nesterov: false}, weight_decay: 0}")
    plan = planned(simple.replace("model: resnet50}", "model: resnet50, optimizer: {nesterov: false}}"))
    specs = [plan.run(row.runs[0].id).spec for row in plan.tables[0].rows[:4]]
    found = [(spec.training.lr, spec.training.optimizer.momentum, spec.sparsity.topology) for spec in specs]
    assert found == [(0.1, 0, "set"), (0.1, 0.5, "set"), (0.2, 0, "set"), (0.2, 0.5, "set")]


@pytest.mark.parametrize(
    ("axis", "path"),
    [
        ("density", ("sparsity", "density")),
        ("update_period", ("sparsity", "update_period")),
        ("multiplier", ("cycle", "multiplier")),
        ("topology.drop", ("sparsity", "topology", "drop")),
        ("gradient_clip.norm", ("training", "gradient_clip", "norm")),
        ("model", ("model",)),
        ("seed", None),
        ("grow", None),
        ("density.of", None),
        ("topology.colour", None),
        ("density.grow", None),
    ],
)
def test_an_axis_is_a_key_of_a_run_without_its_section(axis, path):
    assert path_of(axis) == path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("topology.grow", "growth", "overlay.yaml:6: tables.tableOwn.axes.0: no run has the key 'growth'"),
        ("{density: [", "{densty: [", "overlay.yaml:7: tables.tableOwn.each.densty: no run has the key"),
        (
            "[0.01, 0.003]",
            "[0.01, 3]",
            "overlay.yaml:7: tables.tableOwn.each.density.1: must be less than or equal to 1",
        ),
        ("{density: [0.01", "{revision: [1", "tableOwn.each.revision: no run has the key"),
        ("{density: [0.01", "{dataset: [digits", "tableOwn.each.dataset.0: no row has such a key"),
        (
            "reference: Static",
            "reference: Statik",
            "overlay.yaml:8: tables.tableOwn.reference: there is no row 'Statik'",
        ),
        ("activation: dyrelu", "activation: tanh", "changes.activation: must be relu"),
        ("activation: dyrelu", "colour: blue", "changes.colour: a recipe has no such key"),
        ("activation: dyrelu", "density: 0.1", "changes.density: the row has this key itself"),
        ("activation: dyrelu", "label: Mine", "changes.label: a recipe has no such key"),
        ("activation: dyrelu", "sharing_ratio: 9", "changes.components.sharing_ratio: no stage has more than"),
        ("[0.01, 0.003]", "[0.01, 1.0e-7]", "overlay.yaml:7: tables.tableOwn.each.density: 1e-07 of the"),
        ("{density: [0.01", "{drop_fraction: [0.3", "rows.0.drop_fraction: masks never change with topology: fixed"),
        ("activation: dyrelu", "cyclic: null", "changes.cyclic: a row does not change this key"),
        ("{name: adam}", "{momentum: 0}", "changes.optimizer.nesterov: Nesterov needs a momentum"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(planned, old, new, complaint):
    assert complaint in refused(planned, SWEEP.replace(old, new, 1))


def test_two_rows_that_look_the_same_are_refused(planned):
    overlay = SWEEP.replace("label: RigL", "label: Static, topology: fixed").replace(
        "{optimizer: {name: adam}}", "{lr: 1}"
    )
    assert "another row is called 'Static' too and has the same on all axes" in refused(planned, overlay)


def test_a_source_of_its_own_stands_beside_the_rows_that_it_prints(planned):
    table = planned(with_numbers()).tables[0]
    printed = {row.id: row.published for row in table.rows if row.published}
    assert [(value.mean, value.std) for value in printed.values()] == [(90.5, 0.5), (92, None)]
    assert (table.published, table.source.name, table.comparable, table.is_beside) == (None, "Doe", True, True)
    assert (table.comparing.published_seeds, table.comparing.published_spread) == (5, "standard_error")


def test_seeds_without_any_spread_may_be_printed(planned):
    rows = planned(with_numbers(), NUMBERS.replace("0.5\n", "0\n")).tables[0].rows
    assert [row.published.std for row in rows if row.published] == [0, None]


def test_a_printed_change_is_checked_against_the_printed_reference(planned):
    numbers = "method,density,accuracy_mean,change\nStatic,0.01,80,-\nRigL,0.01,90.5,+10.1\n"
    rows = planned(with_numbers(), numbers).tables[0].rows
    value = next(row.published for row in rows if row.published and row.method == "RigL")
    assert (value.change, value.change_from_means, value.change_contradicts_means) == (10.1, 10.5, True)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("accuracy_std", "std", "numbers.csv, line 1: unknown column 'std'. A column is one of method, topology.grow"),
        ("accuracy_mean", "change", "line 1: the column accuracy_mean is missing"),
        ("RigL,0.01", "RigL,0.02", "line 2: no row of the table has density '0.02'; there are 0.01, 0.003"),
        ("RigL,0.01", "Rigl 2,0.01", "line 2: no row of the table has method 'Rigl 2'; there are Static, RigL, EAST"),
        ("90.5", "905", "line 2: accuracy_mean is 905, and must be between 0 and 100"),
        ("90.5", "", "line 2: accuracy_mean is missing"),
        ("0.5\n", "-0.5\n", "line 2: accuracy_std is -0.5"),
        ("0.5\n", "nan\n", "line 2: accuracy_std is 'nan', and must be a number"),
        ("EAST,0.003", "RigL,0.01", "line 3: an earlier line is about the same row"),
        ("92,-\n", "92,-,\n", "whole only up to line 2"),
        ("92,-\n", "92,-", "whole only up to line 2"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(planned, old, new, complaint):
    said = refused(planned, with_numbers(), NUMBERS.replace(old, new, 1))
    assert said.startswith("overlay.yaml:9: tables.tableOwn.published: numbers.csv")
    assert complaint in said


def test_a_line_about_several_rows_says_which_column_would_tell_them_apart(planned):
    numbers = "density,accuracy_mean\n0.01,90\n"
    said = refused(planned, with_numbers(), numbers)
    assert "3 rows of the table are so. Add a column that tells them apart: method, topology.grow, optimizer" in said


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("    published: numbers.csv\n", "published: say where numbers.csv comes from"),
        ("    published: none.csv\n    source: {name: D, citation: D}\n", "none.csv cannot be read: No such file"),
        ("    source: {name: D, citation: D}\n", "source: a source goes with `published`"),
        ("    published: table2.csv\n", "published: the paper's numbers have the columns of Tables 2–5"),
        ("    published: table2.csv\n    source: {name: D, citation: D}\n", "source: table2.csv is the paper's"),
    ],
)
def test_numbers_and_their_source_go_together(planned, lines, complaint):
    assert complaint in refused(planned, SWEEP.replace("    rows:\n", f"{lines}    rows:\n"))


def test_a_table_with_the_papers_columns_may_have_a_source_of_its_own(planned):
    overlay = """
tables:
  table2:
    published: numbers.csv
    source: {name: Doe, citation: Doe 2020}
"""
    numbers = "pattern,multiplier,cycles,accuracy_mean\n,,,80\ncosine,3,1,82.5\n"
    rows = planned(overlay, numbers).tables[0].rows
    assert [row.published.mean for row in rows] == [80, 82.5]


def claim(form, tables="[tableOwn]"):
    return f"{SWEEP}claims:\n  mine: {{statement: So it is., form: {form}, tables: {tables}}}\n"


def test_claims_are_planned_with_the_form_that_they_have(planned):
    (found,) = planned(claim("{name: raises, axis: density}")).claims
    assert (found.id, found.source, found.form.name) == ("mine", None, "raises")


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ("rises", "form: there is no claim form 'rises'. Did you mean 'raises'?"),
        ("{name: raises}", "form: parameter 'axis' of claim form 'raises' must be given"),
        (
            "{name: raises, axis: depth}",
            "claims.mine.form: tableOwn has no axis 'depth'; known are table, model, label",
        ),
        ("{name: raises, axis: optimizer}", "'optimizer' has fewer than two numbers"),
        ("{name: raises, axis: density, low: 0.003}", "give both low and high, or neither"),
        ("{name: raises, axis: density, low: 0.003, high: 0.02}", "high: no row has density 0.02"),
        ("{name: lowers, axis: density, low: 0.01, high: 0.003}", "low (0.01) must be below high (0.003)"),
        ("{name: raises, axis: density, low: 0.01, high: 0.01}", "low (0.01) must be below high (0.01)"),
        ("{name: above, group: [density<1|2], other: [method=EAST]}", "must have one number after <"),
        ("{name: beats, row: EAST, other: SET}", "there is no row 'SET'; there are Static, RigL, EAST"),
        ("{name: above, group: [method=SET], other: [method=EAST]}", "no row has method=SET"),
        ("{name: above, group: [method], other: [method=EAST]}", "must be an axis, a sign and a value"),
        ("{name: above, group: [density<much], other: [method=EAST]}", "must have one number after <"),
        ("{name: above, group: [method=EAST], other: [method=RigL], margin: -1}", "greater than or equal to 0"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused_where_it_is_written(planned, form, complaint):
    said = refused(planned, claim(form))
    assert said.startswith("overlay.yaml:15: ")
    assert complaint in said


def test_a_claim_about_a_table_that_is_not_there_is_refused(planned):
    assert "'tableX' is not a table" in refused(planned, claim("{name: raises, axis: density}", "[tableX]"))
