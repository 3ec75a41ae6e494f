from pathlib import Path

import pytest
import yaml

from east.config import make_plan, read_config
from east.render.contents import FIGURES, plan_figures, readings, report_contents
from east.render.hyperparameters import hyperparameter_rows
from east.render.schedules import SCHEDULES, distinct_schedules


def values(*overlays):
    return {reading.matter: reading for reading in readings(make_plan(read_config(*overlays)))}


def test_the_papers_configuration_departs_from_no_default():
    assert [reading.matter for reading in values().values() if reading.changed] == []


def test_readings_are_those_of_the_runs_and_not_only_of_the_configurations_head():
    demo = values("config/demo.yaml")
    assert demo["Density"].value == "0.01, 0.03, 0.05, 0.1"
    assert demo["Gradient clip"].value == "norm 1 over dense gradients (sketch), norm 10 over dense gradients (sketch)"
    assert demo["Validation images"].value == "144, 400"


def test_the_authors_codes_readings_are_marked_as_departures():
    changed = {matter for matter, reading in values("config/as_coded.yaml").items() if reading.changed}
    assert changed == {
        "Learning-rate drops",
        "End of the cyclic phase",
        "Cycles that do not fit the training",
        "ERK",
        "Gradient clip",
        "Exchange on the last step",
        "Freezing DyReLU when its fade starts",
    }


@pytest.mark.parametrize(
    ("clip", "value"),
    [
        ("{probes: 4}", "norm 1 over dense gradients (sketch of 4 probes)"),
        ("{every: 3}", "norm 1 over dense gradients (sketch, measured every 3 steps)"),
        ("{estimator: exact}", "norm 1 over dense gradients (exact)"),
        ("{scope: active}", "norm 1 over active gradients"),
        ("null", "none"),
    ],
)
def test_the_reading_of_the_clip_says_how_its_norm_is_found(overlay, clip, value):
    assert values(overlay(f"readings: {{gradient_clip: {clip}}}"))["Gradient clip"].value == value


def test_readings_that_nothing_in_a_plan_has_say_so(overlay):
    adam = overlay("recipes: {resnet34-digits: {optimizer: {name: adam, momentum: 0, nesterov: false}}}")
    assert values("config/test.yaml", adam)["Nesterov momentum"].value == "no SGD in this plan"
    assert values("config/test.yaml")["ResNet-50 in Tables 4 and 5"].value == "not in this plan"
    assert values("config/alternatives.yaml")["ResNet-50 in Tables 4 and 5"].value == "resnet50-cifar-dct with DCT"


def test_the_recipes_print_as_table_b1_does():
    rows = hyperparameter_rows(read_config())
    assert [row["method"] for row in rows] == ["EAST", "DCT+RigL+EAST", "EAST"]
    assert rows[0] == {
        "model": "ResNet-34",
        "method": "EAST",
        "data": "CIFAR-10/100",
        "batch_size": "128",
        "epochs": "250",
        "lr": "0.1",
        "lr_drop_epochs": "10x[75,150]",
        "optimizer": "SGD(0.9)",
        "weight_decay": "1.0e-04",
        "init": "ERK",
        "cyclic_n": "2",
        "cyclic_l": "50",
        "cyclic_m": "10",
        "delta_t_cs": "350",
        "delta_t_dst": "4000",
    }
    assert rows[2]["cyclic_n"] == "-"


def test_every_schedule_of_the_paper_is_drawn_once():
    schedules = distinct_schedules(make_plan(read_config()))
    assert len(schedules) == 18  # 16 of each table, and the two with three cycles
    assert len({schedule.panel for schedule in schedules}) == 6
    assert SCHEDULES.validate_json(SCHEDULES.dump_json(schedules)) == schedules


def test_schedules_that_look_alike_are_drawn_once():
    config = read_config("config/test.yaml")
    table = config.tables["table2"]
    recipe = config.recipes[table.recipe]
    often = recipe.cyclic.model_copy(update={"update_period": 1})
    recipes = config.recipes | {"often": recipe.model_copy(update={"cyclic": often})}
    tables = {"table2": table, "table3": table.model_copy(update={"recipe": "often"})}
    plan = make_plan(config.model_copy(update={"recipes": recipes, "tables": tables}))
    assert len({run.fingerprint for run in plan.runs if "cosine" in run.id}) == 4
    assert len(distinct_schedules(plan)) == 1


def test_schedules_of_different_densities_stand_apart():
    panels = {schedule.panel for schedule in distinct_schedules(make_plan(read_config("config/demo.yaml")))}
    assert "Cosine, 10× of 0.01, 4 epochs" in panels
    assert "Cosine, 10× of 0.1, 3 epochs" in panels


def test_the_report_names_every_table_and_survives_json():
    spec = report_contents(make_plan(read_config()), Path("results/paper"), ["config.yaml"])
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert spec.config == yaml.safe_dump(
        read_config().model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110
    )
    headings = [section.heading for section in spec.tables]
    assert headings[:2] == ["Table 2: ResNet-34 on CIFAR-10", "Table 3: ResNet-34 on CIFAR-100"]
    assert [section.id for section in spec.tables[-2:]] == ["tablemethods", "tableB1"]
    assert spec.cost.id == "table6"
    saved = {section.id: section.downloads for section in (*spec.tables, spec.cost)} | spec.evidence_files
    for name, files in saved.items():
        assert [file.name for file in files] == [f"{name}.csv", f"{name}.md", f"{name}.tex"]


def test_every_figure_stands_in_the_report_under_its_heading():
    spec = report_contents(make_plan(read_config()), Path("results/paper"), ["config.yaml"])
    shown = {group.heading: {figure.svg.name for figure in group.figures} for group in spec.figures}
    shown["Training cost"] = {figure.svg.name for figure in spec.cost.figures}
    tables = {"grid": ["table2", "table3", "table4", "table5"], "methods": ["tablemethods"]}
    for figure in FIGURES:
        if figure.of == ("own",):  # of which the paper has no table
            continue
        names = [f"{table}-{figure.name}.svg" for what in figure.of for table in tables.get(what, [])]
        assert shown[figure.heading.format(source="the paper")] == set(names or [f"{figure.name}.svg"])


@pytest.mark.parametrize(("overlays", "drawn"), [((), True), (("config/demo.yaml",), False)])
def test_differences_are_shown_only_where_a_table_can_be_compared(overlays, drawn):
    plan = make_plan(read_config(*overlays))
    spec = report_contents(plan, Path("results/any"), ["config.yaml"])
    shown = {figure.svg.stem for group in spec.figures for figure in group.figures}
    assert ("differences" in shown) == ("differences" in plan_figures(plan)) == drawn
