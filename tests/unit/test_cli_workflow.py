"""`east make` as the workflow's rules call it: every step, one after the other, over made-up runs."""

import io
import json
import sys

import pytest
import yaml

from east.analysis.sources import Request, Sources, read_made_from
from east.cli.workflow import STEPS
from east.config import make_plan, read_config
from east.cost.record import CostRecord
from east.operations.steps import Steps
from east.render.cost import costs_json
from east.training.records import UpdateRecord
from tests.unit.fake_runs import TEST_CONFIG, write_planned_run, write_rows
from tests.unit.in_process import east

COSTS = [CostRecord(method="RigL", param_size_mb=1.0, est_total_mb=2.0, hours_estimate=0.5).model_dump()]
UPDATES = [{"kind": "initial"}, {"kind": "cycle", "step": 6, "epoch": 1, "nonzeros": 9}]
TABLE2, METHODS, EVIDENCE, COST = (
    f"{name}.json" for name in ("aggregate/table2", "aggregate/tablemethods", "analysis/evidence", "cost/cost")
)
PAPER = {f"table{number}.csv" for number in (2, 3, 4, 5, 6, "B1")}


def make(request, results):
    """The command, which reads the request from standard input and finds the results by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request.text.encode())))
        patch.setenv("EAST_RESULTS", str(results))
        done = east("make")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), request.step


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The steps of a plan with one grid, and the folder in which each was made from what those before it left."""
    results = tmp_path_factory.mktemp("results")
    overlay = results / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"seeds": [1], "tables": {"table3": None}}))
    plan = make_plan(read_config(TEST_CONFIG, overlay))
    for run in plan.runs:
        write_rows(write_planned_run(results / "runs", run), UpdateRecord, *UPDATES)
    steps = Steps(plan, results, [])
    Sources(results).write(steps["cost"].request, {results / COST: costs_json(COSTS)})
    for name in list(steps)[1:]:
        make(steps[name].request, results)
    return Steps(plan, results, []), results


def test_every_step_of_a_plan_makes_the_files_that_the_plan_expects(made):
    steps, _ = made
    assert {name: steps.problem(name) for name in steps} == dict.fromkeys(steps)
    assert {steps[name].request.step for name in steps} == {"cost", *STEPS}


@pytest.mark.parametrize(
    ("name", "derived", "published", "reads_runs"),
    [
        ("aggregate/table2", (), {"table2.csv"}, True),
        ("aggregate/tablemethods", (), (), True),
        ("analysis/evidence", {TABLE2}, PAPER, True),
        ("tables/runs", (), (), True),
        ("tables/epochs", (), (), True),
        ("tables/table2", {TABLE2}, (), True),
        ("tables/tableB1", (), {"tableB1.csv"}, False),
        ("tables/table6", {COST}, {"table6.csv"}, False),
        ("tables/claims", {EVIDENCE}, (), True),
        ("figures/table2-curves", {TABLE2}, (), True),
        ("figures/tablemethods-churn", {METHODS}, (), True),
        ("figures/cost", {COST}, {"table6.csv"}, False),
    ],
)
def test_a_step_reads_what_it_needs_and_nothing_else(made, name, derived, published, reads_runs):
    record = read_made_from(made[1], name)
    assert (set(record.results), set(record.published), bool(record.runs)) == (set(derived), set(published), reads_runs)


def test_what_was_asked_for_is_what_is_made(made):
    _, results = made
    table6 = (results / "tables" / "table6.md").read_text()
    assert "ResNet-34 on Digits" in table6
    assert "do not test the paper's numbers" in table6  # of a narrower network
    assert [one["table"] for one in json.loads((results / EVIDENCE).read_text())["comparisons"]] == ["table2"]


def test_differences_from_the_paper_are_drawn_where_the_plan_asks_for_them(made):
    steps, results = made
    asked = steps["figures/plan"].request
    make(Request(step=asked.step, of=asked.of | {"differences": True}), results)
    assert EVIDENCE in read_made_from(results, "figures/differences").results


def test_a_partial_table_may_lack_runs(made, tmp_path):
    asked = made[0]["aggregate/table2"].request
    make(Request(step=asked.step, of=asked.of | {"partial": True}), tmp_path)
    assert json.loads((tmp_path / TABLE2).read_text())["rows"][0]["accuracy"]["seeds"][0]["status"] == "missing"
