"""Trainings at a share of their recipes' length: what is scaled, what stays, and what is refused."""

import re

import pytest
import yaml

from east.config import make_plan, read_config
from east.errors import EastError
from tests.unit.small_config import in_a_project


def at_length(folder, length, **overlay):
    """The configuration with everything at this length, and with more."""
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump({"training_length": length, **overlay}), encoding="utf-8")
    return in_a_project(lambda: read_config(path), folder)


def of_plain(**keys):
    return {"recipes": {"plain": keys}}


def test_what_counts_a_training_is_scaled_and_what_a_step_does_stays(tmp_path):
    found, written = (at_length(tmp_path, length).recipes["plain"] for length in (0.048, 1))
    assert (found.epochs, found.lr_drop_epochs, found.update_period) == (12, (4, 7), 192)
    assert (found.cyclic.cycle_length, found.cyclic.update_period) == (2.4, 17)
    kept = {"batch_size", "lr", "optimizer", "weight_decay", "gradient_clip", "distribution", "components", "width"}
    assert found.model_dump(include=kept) == written.model_dump(include=kept)


@pytest.mark.parametrize("length", [0.048, 0.1, 0.5, 1])
def test_cycles_and_updates_come_at_the_same_shares_of_a_training(tmp_path, length):
    recipe = at_length(tmp_path, length).recipes["plain"]
    assert recipe.cyclic.cycle_length / recipe.epochs == pytest.approx(50 / 250)
    assert recipe.epochs / recipe.update_period == pytest.approx(250 / 4000, rel=0.01)


def test_halves_are_rounded_up(tmp_path):
    assert at_length(tmp_path, 0.1).recipes["plain"].lr_drop_epochs == (8, 15)


def test_rows_and_their_choices_are_scaled_as_recipes_are(tmp_path):
    plugin = tmp_path / "late.py"
    plugin.write_text(
        '"""Growth."""\nfrom east.methods import Steps, growth_rule\n\n'
        '@growth_rule(paper="none")\ndef late(layer, *, first: Steps = 10, last: Steps = 800, power: int = 10):\n'
        '    """It begins late."""\n    return layer.gradient\n',
        encoding="utf-8",
    )
    grow = {"name": "late", "first": 500, "power": 3}
    row = {"static": True, "update_period": 1000, "topology": {"grow": grow}}
    table = {"recipe": "plain", "dataset": "cifar10", "rows": [row]}
    config = at_length(tmp_path, 0.1, plugins=["late.py"], tables={"table2": table})
    sparsity = make_plan(config).runs[0].spec.sparsity
    assert sparsity.update_period == 100
    assert dict(sparsity.topology.grow.parameters) == {"first": 50, "last": 80, "power": 3}


def test_what_a_row_changes_of_its_recipe_is_scaled_once(tmp_path):
    rows = [{"static": True, "changes": {"epochs": 100, "lr_drop_epochs": [30]}}]
    table = {"recipe": "plain", "dataset": "cifar10", "each": {"update_period": [1000, 2000]}, "rows": rows}
    plan = make_plan(at_length(tmp_path, 0.1, tables={"table2": table}))
    found = [run.spec for run in plan.runs if run.table == "table2"]
    assert [spec.sparsity.update_period for spec in found] == [100, 200]
    assert {(spec.training.epochs, spec.training.lr_drop_epochs) for spec in found} == {(10, (3,))}


def test_the_period_of_the_clip_belongs_to_the_step(tmp_path):
    clip = {"norm": 1.0, "scope": "dense", "every": 4}
    assert at_length(tmp_path, 0.1, **of_plain(gradient_clip=clip)).recipes["plain"].gradient_clip.every == 4


def test_a_length_of_one_changes_nothing(tmp_path):
    config = at_length(tmp_path, 1)
    assert config.written is config
    assert make_plan(config).runs == make_plan(in_a_project(read_config, tmp_path)).runs


def test_the_configuration_is_kept_as_it_was_written(tmp_path):
    config = at_length(tmp_path, 0.1)
    assert config.recipes["plain"].epochs == 25
    assert config.written.recipes["plain"].epochs == 250


@pytest.mark.parametrize(
    ("length", "keys", "where", "what"),
    [
        (0.05, {}, "epochs", r"12\.5, not a whole number\. Set training_length to 0\.048 or 0\.052"),
        (0.004, {}, "lr_drop_epochs", "0.3, less than half of one"),
        (0.1, {"update_period": 4}, "update_period", "0.4, less than half of one"),
        (0.1, {"lr_drop_epochs": [75, 76]}, "lr_drop_epochs", "75, 76 come after 8, 8, two of them together"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, length, keys, where, what):
    with pytest.raises(EastError, match=re.escape(f"recipes.plain.{where}: ") + f".*{what}"):
        at_length(tmp_path, length, **of_plain(**keys))


def test_the_length_that_is_advised_fits(tmp_path):
    with pytest.raises(EastError) as refused:
        at_length(tmp_path, 0.0333)
    lengths = re.findall(r"(?:to|or) (0\.\d+)", str(refused.value))
    assert [at_length(tmp_path, float(length)).recipes["plain"].epochs for length in lengths] == [8, 9]


def test_a_table_of_shorter_trainings_is_not_compared_with_the_papers(tmp_path):
    table = {"table2": {"published": "table2.csv", "recipe": "plain", "dataset": "cifar10", "rows": [{"static": True}]}}
    overlay = {"tables": table, "density": 0.0005}
    comparable = [make_plan(at_length(tmp_path, length, **overlay)).tables[0].comparable for length in (1, 0.1)]
    assert comparable == [True, False]


def test_the_papers_plan_fits_at_a_tenth():
    plan, whole = make_plan(read_config("config/short.yaml")), make_plan(read_config())
    assert len(plan.runs) == len(whole.runs)
    assert {run.spec.training.epochs for run in plan.runs} == {25, 20}
