import pytest
import yaml

from benchmarks.pretend import write_runs
from benchmarks.scale import TINY, as_markdown, measure_synthetic, overlay
from east.analysis.aggregate import aggregate
from east.config import make_plan, read_config
from east.errors import EastError
from tests.conftest import ROOT
from tests.unit.fake_runs import sources


def synthetic_plan(tmp_path, runs):
    path = tmp_path / "synthetic.yaml"
    path.write_text(yaml.safe_dump(overlay(runs)))
    return make_plan(read_config(TINY, path))


@pytest.mark.parametrize(("runs", "tables"), [(100, 1), (1_000, 1), (1_100, 2)])
def test_a_synthetic_plan_has_as_many_runs_as_asked_for(tmp_path, runs, tables):
    plan = synthetic_plan(tmp_path, runs)
    assert len(plan.runs) == len({run.id for run in plan.runs}) == runs
    assert [len(table.rows) for table in plan.tables[:-1]] == [100] * (tables - 1) + [runs // 10 - 100 * (tables - 1)]


def test_a_size_that_cannot_be_made_is_refused():
    with pytest.raises(EastError, match="--runs 150 is not a multiple of 100"):
        overlay(150)


def test_runs_made_up_pass_for_finished_ones(tmp_path):
    plan = synthetic_plan(tmp_path, 100)
    write_runs(plan, tmp_path / "runs")
    table = aggregate(plan.tables[0], sources(tmp_path / "runs"), published_dir=ROOT / "report" / "published")
    assert all(row.accuracy.complete for row in table.rows)


def test_results_are_a_table_with_a_column_a_plan():
    dry = {"command": "snakemake -n, nothing done", "seconds": 2.51, "cpu_seconds": 1.94, "megabytes": 130.2}
    status = {"command": "east status, all trained", "seconds": 0.5, "cpu_seconds": 0.4, "megabytes": 40}
    scale = dict.fromkeys(["processor", "cores", "platform", "python", "snakemake", "commit", "date"], "a word")
    scale |= {
        "load": 0.5,
        "sizes": [
            {"plan": "the paper", "runs": 234, "page": None, "measured": [dry]},
            {"plan": "synthetic", "runs": 10_000, "page": 3 * 2**20, "measured": [dry, status]},
        ],
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in as_markdown(scale).splitlines()]
    assert ["", "the paper, 234 runs", "synthetic, 10,000 runs"] in rows
    assert ["`snakemake -n, nothing done`", "2.5 s (1.9), 130 MB", "2.5 s (1.9), 130 MB"] in rows
    assert ["`east status, all trained`", "–", "0.5 s (0.4), 40 MB"] in rows
    assert ["size of the report", "–", "3.0 MB"] in rows


@pytest.mark.slow
@pytest.mark.workflow
def test_the_benchmark_measures_every_command_on_a_small_plan():
    size = measure_synthetic(100, render=False)
    assert [measured["command"] for measured in size["measured"]] == [
        "east plan",
        "east plan --json",
        "east status, nothing done",
        "snakemake -n, nothing done",
        "east status, all trained",
        "snakemake -n, all trained",
    ]
    assert all(measured["seconds"] > 0 and measured["megabytes"] > 10 for measured in size["measured"])
