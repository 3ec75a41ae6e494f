import pytest
from hypothesis import given
from hypothesis import strategies as st

from east.analysis.audit import (
    audit,
    changes_that_do_not_add_up,
    cycles_that_do_not_fit,
    parameters_counted_twice,
    parts_that_do_not_add_up,
    settings_of_one_table_only,
)
from east.analysis.published import PublishedCost, PublishedGrid, PublishedRecipe, read_published
from tests.unit.fake_runs import PUBLISHED
from tests.unit.fake_tables import paper, papers

RECIPES = read_published(PUBLISHED / "tableB1.csv", PublishedRecipe)
COSTS = read_published(PUBLISHED / "table6.csv", PublishedCost)


def changed(grid, find, **update):
    """The table with the rows that `find` finds changed."""
    return PublishedGrid(rows=tuple(row.model_copy(update=update) if find(row) else row for row in grid.rows))


def cost(method, param_size_mb, est_total_mb):
    return PublishedCost(method=method, train_time="<1", param_size_mb=param_size_mb, est_total_mb=est_total_mb)


def places(findings):
    return [(finding.rule, finding.table, finding.row) for finding in findings]


def test_all_that_is_found_in_the_papers_tables():
    assert places(audit(papers(), RECIPES, COSTS)) == [
        ("change does not add up", "3", "cosine, 30×, 2 cycles, 2×"),
        ("cycles do not fit", "5", "cosine, 30×, 3 cycles, 2×"),
        ("setting of one table only", "5", "cosine, 30×, 3 cycles, 1×"),
        ("setting of one table only", "5", "cosine, 30×, 3 cycles, 2×"),
        ("parts do not add up", "6", "EAST Combined"),
        ("activations without parameters", "6", "EAST w/ DyReLU"),
        ("parameters counted twice", "6", "DCTpS"),
    ]


def test_findings_carry_their_numbers_and_say_them():
    change, cycles, *_ = audit(papers(), RECIPES, COSTS)
    # 43.83 - 38.44
    assert change.numbers == {
        "mean": 43.83,
        "static_mean": 38.44,
        "printed_change": 4.4,
        "recomputed_change": pytest.approx(5.39),
    }
    assert change.text.startswith("Table 3 prints a change of +4.4 for cosine, 30×, 2 cycles, 2×, but 43.83 minus ")
    assert change.text.endswith(" the static row's 38.44 is +5.39.")
    assert cycles.numbers == {"epochs_of_cycles": 350, "epochs_of_longest_training": 250}
    assert "cycles of 50 + 100 + 200 = 350 epochs do not fit the trainings of 200 and 250 epochs" in cycles.text


@given(st.sampled_from("245"), st.integers(1, 16), st.floats(-50, 50))
def test_any_change_that_is_off_by_more_than_rounding_is_found(number, index, error):
    grid = paper(number)
    row = grid.rows[index]
    exact = row.accuracy_mean - grid.static.accuracy_mean
    findings = changes_that_do_not_add_up(changed(grid, lambda other: other is row, change=exact + error))
    if abs(error) > 0.051:
        assert [finding.numbers["mean"] for finding in findings] == [row.accuracy_mean]
    elif abs(error) < 0.049:
        assert findings == ()


def test_changes_need_a_static_row():
    grid = paper("3")
    assert changes_that_do_not_add_up(PublishedGrid(rows=grid.rows[1:])) == ()


def test_cycles_are_excused_by_any_training_long_enough():
    table = paper("5")
    assert len(cycles_that_do_not_fit(table, RECIPES)) == 1
    longer = [recipe.model_copy(update={"epochs": 350}) for recipe in RECIPES]
    assert cycles_that_do_not_fit(table, longer) == ()
    # Two cycles at 2x are 150 epochs, at 3.5x 225, which one of the two trainings holds, at 5x 300.
    assert cycles_that_do_not_fit(paper("2"), RECIPES) == ()
    held = changed(paper("2"), lambda row: row.key == ("cosine", 10, 2, 2), length_multiplier=3.5)
    assert cycles_that_do_not_fit(held, RECIPES) == ()
    exactly = changed(paper("2"), lambda row: row.key == ("cosine", 10, 2, 2), length_multiplier=4.0)
    assert cycles_that_do_not_fit(exactly, RECIPES) == ()
    stretched = changed(paper("2"), lambda row: row.key == ("cosine", 10, 2, 2), length_multiplier=5.0)
    assert places(cycles_that_do_not_fit(stretched, RECIPES)) == [
        ("cycles do not fit", "2", "cosine, 10×, 2 cycles, 5×")
    ]


def test_recipes_of_other_data_or_without_cycles_say_nothing():
    imagenet = [recipe for recipe in RECIPES if recipe.data == "ImageNet"]
    assert imagenet[0].cycle_length is None
    assert cycles_that_do_not_fit(paper("5"), imagenet) == ()
    cifar10 = [recipe.model_copy(update={"data": "CIFAR-10"}) for recipe in RECIPES]
    assert cycles_that_do_not_fit(paper("5"), cifar10) == ()


def test_a_setting_is_alone_only_if_all_other_tables_have_its_neighbour():
    assert settings_of_one_table_only(papers()[:3]) == ()
    assert settings_of_one_table_only([]) == ()
    # With one other table nobody can tell which of the two is the misprint.
    assert settings_of_one_table_only(papers()[2:]) == ()
    odd = changed(paper("2"), lambda row: row.key == ("cosine", 10, 1, None), multiplier=11.0)
    (finding,) = settings_of_one_table_only([odd, paper("3"), paper("4")])
    assert (finding.table, finding.row) == ("2", "cosine, 11×, 1 cycle")
    assert "column Multiplier" in finding.text


@pytest.mark.parametrize(("combined", "adds_up"), [(60.02, True), (59.98, True), (60.03, False), (59.97, False)])
def test_parts_measured_alike_add_up_within_what_rounding_hides(combined, adds_up):
    # 80 + 10 - 30 = 60 MB of parameters; four numbers with an error of 0.005 each may hide 0.02.
    costs = [cost("Base", 80, 100), cost("X w/ A", 90, 115), cost("X w/ B", 50, 65), cost("X Combined", combined, 75)]
    assert (parts_that_do_not_add_up(costs) == ()) == adds_up


def test_a_part_measured_switched_off_is_named_by_its_activations():
    # The combined system has A's 10 MB, A's own row only its 5 MB of activations.
    costs = [cost("Base", 80, 100), cost("X w/ A", 80, 105), cost("X w/ B", 50, 65), cost("X Combined", 60, 80)]
    assert places(parts_that_do_not_add_up(costs)) == [
        ("parts do not add up", "6", "X Combined"),
        ("activations without parameters", "6", "X w/ A"),
    ]


@pytest.mark.parametrize(
    ("parameters", "activations", "named"), [(0.01, 5, True), (0.02, 5, False), (0, 0.03, True), (0, 0.02, False)]
)
def test_a_part_is_named_if_it_has_activations_and_no_parameters_beyond_rounding(parameters, activations, named):
    part = cost("X w/ A", 80 + parameters, 100 + parameters + activations)
    findings = parts_that_do_not_add_up([cost("Base", 80, 100), part, cost("X Combined", 90, 120)])
    assert [finding.row for finding in findings] == ["X Combined", *(["X w/ A"] if named else [])]


def test_activations_at_the_limit_of_rounding_are_none():
    # 0.02 MB, with no other number to round.
    costs = [cost("Base", 80, 0), cost("X w/ A", 80, 0.02), cost("X Combined", 90, 120)]
    assert [finding.row for finding in parts_that_do_not_add_up(costs)] == ["X Combined"]


def test_a_combined_system_with_too_little_names_no_part():
    costs = [cost("Base", 80, 100), cost("X w/ A", 80, 110), cost("X Combined", 70, 100)]
    (finding,) = parts_that_do_not_add_up(costs)
    assert finding.numbers["difference_mb"] == -10


def test_the_left_over_of_table_6_is_dyrelus_parameters():
    combined, dyrelu = parts_that_do_not_add_up(COSTS)
    # 54.96 - (81.36 - 38.53) = 12.13; a ResNet-34's DyReLU has 3,181,168 parameters of four bytes.
    assert combined.numbers["difference_mb"] == pytest.approx(3_181_168 * 4 / 2**20, abs=0.01)
    # (107.81 - 81.36) - (100.44 - 81.36)
    assert dyrelu.numbers["activations_mb_added"] == pytest.approx(7.37)


def test_a_table_of_costs_without_rows_has_no_findings():
    assert audit([], [], []) == ()


@pytest.mark.parametrize(("size", "twice"), [(160, True), (160.7, True), (159.3, True), (161, False), (159, False)])
def test_twice_the_parameters_are_twice_within_half_a_percent(size, twice):
    found = parameters_counted_twice([cost("Base", 80, 100), cost("Other", size, 300)])
    assert places(found) == ([("parameters counted twice", "6", "Other")] if twice else [])
