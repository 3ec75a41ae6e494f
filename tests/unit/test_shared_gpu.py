"""Seconds that were taken while trainings shared a GPU: flagged wherever they are shown, and kept out of Table 6."""

import json

import pytest

from east.analysis.provenance import provenance_of
from east.analysis.words import sharing_text
from east.cli.console import make_console
from east.cli.status_view import overview
from east.config import make_plan, read_config
from east.launch.lease import leased_gpu
from east.operations.status import StatusReader
from east.render.overview import _facts, provenance_rows
from east.render.runs import _facts as seed_facts
from east.training.folder import locked
from east.training.progress import finished_line
from east.training.records import read_summary
from east.training.state import StateFile
from tests.unit.fake_runs import TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

SHARED = sharing_text(2)


pytestmark = pytest.mark.usefixtures("own_machine")


@pytest.fixture
def plan():
    return make_plan(read_config(TEST_CONFIG))


@pytest.fixture
def summaries(plan, tmp_path):
    """Of a run that had its GPU to itself, and of one that may have shared it."""
    folders = [write_planned_run(tmp_path / "runs", run, runs_per_device=1 + i) for i, run in enumerate(plan.runs[:2])]
    return [read_summary(folder / "summary.json") for folder in folders]


def test_the_report_flags_seconds_of_runs_that_shared_a_gpu(summaries):
    assert [SHARED in dict(seed_facts(summary))["Wall time"] for summary in summaries] == [False, True]
    provenance = provenance_of(summaries)
    assert provenance.shared == 1
    (row,) = dict(provenance_rows({}, provenance))["Training time"]
    assert dict(_facts(provenance))["Training time"] == row
    assert "1 run on a shared GPU" in row
    assert "shared" not in dict(_facts(provenance_of(summaries[:1])))["Training time"]


def test_the_report_says_how_far_runs_can_be_repeated(summaries):
    alone = dict(provenance_rows({}, provenance_of(summaries[:1])))["Reproducibility"]
    other = summaries[0].model_copy(update={"reproducibility": "statistical"})
    both = dict(provenance_rows({}, provenance_of([*summaries, other])))["Reproducibility"]
    assert (alone, len(both)) == (["any processor"], 2)
    assert "statistical" in both[1]


def test_status_flags_seconds_of_runs_that_share_a_gpu(plan, summaries, tmp_path, capsys):
    running = tmp_path / "runs" / plan.runs[2].id
    with locked(running):
        state = StateFile(running, epochs=2, device="H100", threads=1, gpu="3", runs_per_device=2)
        state.write(epoch=1, step=6, seconds_per_epoch=30.0)
        status = StatusReader(plan, tmp_path).read()
        make_console().print(overview(status, everything=True))
    shown = capsys.readouterr().out
    lines = {run.id: next(line for line in shown.splitlines() if run.id in line) for run in plan.runs[:3]}
    assert [SHARED in line for line in lines.values()] == [False, True, True]
    assert "GPU 3" in lines[plan.runs[2].id]
    assert [run.runs_per_device for run in status.runs[:3]] == [1, 2, 2]


def test_a_run_alone_and_the_line_at_its_end_say_so(plan, summaries, tmp_path):
    run = plan.runs[1].id
    done = east("show", run, "--configfile", TEST_CONFIG, "--results", tmp_path)
    assert SHARED in " ".join(done.stdout.split())
    folder = tmp_path / "runs" / run
    summary = read_summary(folder / "summary.json")
    assert SHARED in finished_line(summary, folder, None)
    older = summary.model_copy(update={"runs_per_device": None})
    assert SHARED not in finished_line(older, folder, None)


@pytest.mark.slow
def test_no_step_is_timed_for_table_6_on_a_part_of_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_SHARDS_ON_NODE", "1")
    done = east("cost", "--configfile", TEST_CONFIG, "--json")
    assert "no steps are timed" in done.stderr
    assert {row["seconds_per_step"] for row in json.loads(done.stdout)} == {None}


def test_an_estimate_beside_a_training_says_that_it_was_disturbed(plan, tmp_path, monkeypatch):
    for run in plan.runs:
        write_planned_run(tmp_path / "runs", run)
    monkeypatch.setenv("EAST_GPUS", "0")
    arguments = ("estimate", "--configfile", TEST_CONFIG, "--results", tmp_path, "--device", "auto", "--json")
    assert json.loads(east(*arguments).stdout)["disturbed"] is False
    with leased_gpu(1):
        assert json.loads(east(*arguments).stdout)["disturbed"] is True
