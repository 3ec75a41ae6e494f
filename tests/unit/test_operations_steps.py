"""The steps of a plan, and whether what they made is still right."""

import shutil

import pytest

from east.analysis.sources import Sources
from east.config import make_plan, read_config
from east.operations.steps import Steps
from east.render.contents import plan_figures, table_figures
from tests.unit.fake_runs import TEST_CONFIG, seal, write_planned_run, write_steps

PLAN = make_plan(read_config(TEST_CONFIG))
RUN = "table2/static/seed1"


def steps(results, plan=PLAN):
    return Steps(plan, results, [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Finished results in which every step has made its files."""
    results = tmp_path_factory.mktemp("results")
    for run in PLAN.runs:
        write_planned_run(results / "runs", run)
    write_steps(results, *steps(results))
    return results


@pytest.fixture
def results(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "results")
    write_steps(copy, "report", "appendix")  # which name the folder
    return copy


def wrong(results, plan=PLAN):
    found = steps(results, plan)
    return {name for name in found if found.problem(name)}


def test_what_was_just_made_is_right(whole):
    assert wrong(whole) == set()
    assert all(map(steps(whole).is_right, steps(whole)))


@pytest.mark.parametrize("step", list(steps(TEST_CONFIG)))
def test_any_file_of_a_step_that_is_gone_or_changed_is_noticed(results, step):
    for file in steps(results)[step].files:
        path = results / file
        right = path.read_bytes()
        path.unlink()
        assert steps(results).problem(step)
        path.write_bytes(right + b" ")
        assert steps(results).problem(step)
        path.write_bytes(right)
    assert steps(results).problem(step) is None


def test_what_each_step_makes_and_needs():
    """How many files; and the files that must have been asked for as the plan has them."""
    found = steps(TEST_CONFIG)
    tables = [table.id for table in PLAN.tables]
    drawn = [table_figures("methods" if table == "tablemethods" else "grid") for table in tables]
    summaries, evidence = {f"aggregate/{table}" for table in tables}, {"analysis/evidence"}
    in_appendix = summaries | evidence | {f"tables/{name}" for name in (*tables, "tableB1", "table6")}
    in_report = {name for step in found for name in found[step].names if name.startswith(("figures/", "tables/"))}
    in_report -= {"tables/runs", "tables/epochs", "tables/appendix"}
    assert {
        name: (found[name].request.step, len(found[name].files), set(found[name].request.expected)) for name in found
    } == {
        "cost": ("cost", 1, set()),
        **{f"aggregate/{table}": ("aggregate", 1, set()) for table in tables},
        "analyse": ("analyse", 1, {"aggregate/table2", "aggregate/table3"}),
        "frames": ("frames", 2, set()),
        **{f"tables/{table}": ("table", 4, {f"aggregate/{table}"}) for table in tables},
        "tables/tableB1": ("table-b1", 4, set()),
        "tables/table6": ("table-6", 4, {"cost/cost"}),
        "tables/evidence": ("evidence-tables", 3 * 4, evidence),
        **{
            f"figures/{table}": ("figures", 2 * len(figures), {f"aggregate/{table}"})
            for table, figures in zip(tables, drawn, strict=True)
        },
        "figures/plan": ("plan-figures", 2 * len(plan_figures(PLAN)), {"cost/cost"}),
        "report": ("report", 1, summaries | evidence | in_report),
        "appendix": ("appendix", 1, in_appendix),
    }
    assert {name: set(found[name].runs) for name in found if found[name].runs} == {
        **{f"aggregate/{table.id}": {run.id for row in table.rows for run in row.runs} for table in PLAN.tables},
        "frames": {run.id for run in PLAN.runs},
    }
    asked = {name: found[step].request.digest for step in found for name in found[step].names}
    for step in found:
        assert found[step].request.expected.items() <= asked.items()


def test_figures_of_a_plan_need_the_tests_only_where_they_show_them(tmp_path):
    for plan, needs in ((PLAN, {"cost/cost"}), (make_plan(read_config()), {"cost/cost", "analysis/evidence"})):
        request = steps(tmp_path, plan)["figures/plan"].request
        assert request.expected.keys() == needs
        assert request.of["differences"] == (len(needs) == 2)


def test_a_file_that_its_record_leaves_out_is_noticed(results):
    step = steps(results)["tables/table2"]
    kept = [results / file for file in step.files if not file.endswith(".tex")]
    Sources(results).write(step.request, {path: path.read_bytes() for path in kept})
    assert steps(results).problem("tables/table2") == "tables/table2.tex is not in the record of tables/table2"


def test_a_record_that_is_gone_or_damaged_is_noticed(results):
    record = results / "made_from" / "tables" / "table2.json"
    right = record.read_text()
    for content in (right[:-3], right.replace('"request": "', '"request": "0'), "[]"):
        record.write_text(content)
        assert wrong(results) == {"tables/table2"}
    record.unlink()
    assert wrong(results) == {"tables/table2"}


def test_another_run_under_its_name_reaches_everything_that_was_made_from_it(results):
    seal(results / "runs" / RUN / "summary.json", final_test_accuracy=51.0)
    found = wrong(results)
    assert {"aggregate/table2", "aggregate/tablemethods", "frames", "tables/table2", "report", "analyse"} <= found
    assert not found & {"aggregate/table3", "tables/table3", "tables/tableB1", "cost", "tables/table6"}


@pytest.mark.parametrize("name", ["metrics.csv", "updates.csv", "trace.csv", "timing.csv", "run.json", "summary.json"])
def test_a_run_with_a_damaged_file_trains_again(results, name):
    path = results / "runs" / RUN / name
    assert steps(results).run_problem(RUN) is None
    path.write_bytes(path.read_bytes() + b"\n1")
    assert steps(results).run_problem(RUN) is not None


def test_a_run_without_a_summary_needs_no_reason(tmp_path):
    assert steps(tmp_path).run_problem(RUN) is None


def changed(overlay, text):
    return make_plan(read_config(TEST_CONFIG, overlay(text)))


def test_another_recipe_makes_everything_of_its_runs_wrong(results, overlay):
    found = wrong(results, changed(overlay, "recipes: {resnet34-digits: {lr: 0.2}}"))
    assert {"aggregate/table2", "aggregate/table3", "tables/table2", "frames", "figures/table2", "report"} <= found
    assert steps(results, changed(overlay, "recipes: {resnet34-digits: {lr: 0.2}}")).run_problem(RUN) is not None


def test_a_label_reaches_its_table_and_what_shows_it_and_no_training(results, overlay):
    plan = changed(overlay, "tables: {table3: {title: Another}}")
    found = wrong(results, plan)
    assert {"aggregate/table3", "tables/table3", "report"} <= found
    assert not found & {"aggregate/table2", "tables/table2", "cost"}
    assert steps(results, plan).run_problem(RUN) is None


def test_a_run_that_has_ended_since_reaches_a_partial_report(tmp_path, overlay):
    plan = changed(overlay, "execution: {partial: true}")
    runs = {run.id: run for run in plan.runs}
    write_planned_run(tmp_path / "runs", runs[RUN])
    write_steps(tmp_path, "aggregate/table2", plan=plan)
    assert steps(tmp_path, plan).problem("aggregate/table2") is None
    write_planned_run(tmp_path / "runs", runs["table2/static/seed2"])
    assert "run table2/static/seed2 is not the one that" in steps(tmp_path, plan).problem("aggregate/table2")


def test_a_step_is_right_only_if_what_it_needs_is(results):
    found = steps(results)
    assert found.is_right("tables/table6")
    (results / "made_from/cost/cost.json").unlink()
    found = steps(results)
    assert found.problem("tables/table6") is None
    assert not found.is_right("tables/table6")


def test_every_file_belongs_to_one_step(whole):
    files = [file for name in steps(whole) for file in steps(whole)[name].files]
    assert len(files) == len(set(files))
