"""What the commands that look after results say and do, beside what Snakemake makes of it."""

import shutil

import pytest

from east.config import load_plan
from tests.unit.fake_runs import write_planned_run
from tests.workflow.conftest import RUNS, TEST_CONFIG, configured, east, snakemake, trained, would_train
from tests.workflow.dag import planned_jobs

pytestmark = pytest.mark.workflow

LR = "recipes: {resnet34-digits: {lr: 0.2}}"
ONE = "table3/triangular-m3-n1/seed1"


def run_files(workdir, name="metrics.csv"):
    """Time and content of a file of every run."""
    runs = workdir / "results" / "test" / "runs"
    paths = sorted(runs.glob(f"*/*/*/{name}"))
    return {str(path.parent.relative_to(runs)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def tables(workdir, *names):
    folder = workdir / "results" / "test" / "tables"
    return {path.name: path.read_bytes() for path in folder.iterdir() if not names or path.stem in names}


@pytest.fixture
def published(finished, tmp_path):
    """Archive and lock of the finished workflow."""
    files = tmp_path / "published.tar.gz", tmp_path / "results.lock.json"
    east(finished, "archive", files[0], *configured(TEST_CONFIG))
    east(finished, "lock", "--out", files[1], *configured(TEST_CONFIG))
    return files


@pytest.fixture
def clone(published, tmp_path):
    """A working directory with nothing but the results of the archive."""
    (tmp_path / "a clone").mkdir()
    east(tmp_path / "a clone", "restore", published[0])
    return tmp_path / "a clone"


def test_a_run_of_which_only_the_summary_was_removed_for_training_it_again_is_unfinished(copy):
    """What is left when a job was killed at its start, after Snakemake had removed the old result."""
    folder = copy / "results" / "test" / "runs" / ONE
    for name in ("summary.json", "summary.kept.json"):
        (folder / name).unlink()
    for made in ("report", "figures", "tables", "aggregate"):
        shutil.rmtree(copy / "results" / "test" / made)
    assert would_train(copy, TEST_CONFIG) == trained(planned_jobs(copy, TEST_CONFIG)) == [ONE]
    assert "unfinished" in east(copy, "plan", "--changed", *configured(TEST_CONFIG))


def test_what_is_named_is_trained_whatever_snakemakes_records_say(copy, overlay):
    shutil.rmtree(copy / "results" / "test" / "runs" / ONE)
    assert trained(planned_jobs(copy, TEST_CONFIG)) == [ONE]
    shutil.rmtree(copy / ".snakemake")
    assert trained(planned_jobs(copy, TEST_CONFIG)) == would_train(copy, TEST_CONFIG) == [ONE]
    files = TEST_CONFIG, overlay(LR)
    assert trained(planned_jobs(copy, *files)) == would_train(copy, *files) == RUNS


def test_tables_are_made_again_from_an_archive_without_training_or_data(finished, published, clone):
    lock = published[1]
    east(clone, "verify", lock)
    assert "0 of 6 runs would train" in east(clone, "plan", "--changed", *configured(TEST_CONFIG))
    done = snakemake(clone, "tables", "--configfile", TEST_CONFIG)
    assert done.returncode == 0, done.stderr
    assert not (clone / "data").exists()
    assert not (clone / "results" / "test" / "logs" / "train").exists()
    made = tables(clone)
    assert {f"{name}.csv" for name in ("table2", "table3", "tablemethods", "table6", "tableB1")} <= made.keys()
    assert made.items() <= tables(finished).items()
    assert "42 files of 6 runs in results/test are as" in east(clone, "verify", lock)
    assert planned_jobs(clone, TEST_CONFIG, forced=("write_report",))
    assert trained(planned_jobs(clone, TEST_CONFIG, forced=("write_report",))) == []


def test_jobs_of_finished_runs_train_nothing(finished, clone):
    """Snakemake takes data that it prepares as a reason to repeat every job that names them."""
    shutil.rmtree(clone / "results" / "test" / "runs" / ONE)
    shutil.copytree(finished / "data", clone / "data")
    assert trained(planned_jobs(clone, TEST_CONFIG)) == [ONE]
    shutil.rmtree(clone / "data")
    assert trained(planned_jobs(clone, TEST_CONFIG)) == RUNS
    before = run_files(clone)
    wanted = [f"results/test/runs/{run}/summary.json" for run in (ONE, RUNS[0])]
    done = snakemake(clone, *wanted, "--configfile", TEST_CONFIG)
    assert done.returncode == 0, done.stderr
    assert run_files(clone) == before | {ONE: run_files(clone)[ONE]}
    assert run_files(clone, "summary.json").keys() >= {ONE, RUNS[0]}


def test_runs_of_somebody_else_complete_the_tables(finished, copy, tmp_path):
    """One has the runs of Table 2, the other those of Table 3."""
    shutil.rmtree(copy / "results" / "test" / "runs" / "table3")
    (mine := tmp_path / "mine").mkdir()
    for source, counts in ((copy, "4 taken, 0 there already"), (finished, "2 taken, 4 there already")):
        said = east(mine, "merge", source / "results" / "test", *configured(TEST_CONFIG))
        assert said == f"results/test: {counts}, 0 refused.\n"
    names = ("table2", "table3", "tablemethods")
    done = snakemake(mine, *(f"results/test/tables/{name}.md" for name in names), "--configfile", TEST_CONFIG)
    assert done.returncode == 0, done.stderr
    assert not (mine / "data").exists()
    assert tables(mine, *names) == tables(finished, *names)


def test_a_run_taken_over_is_not_trained_again_whatever_snakemake_remembers_of_it(copy, tmp_path, overlay):
    """Its records are of a run with other settings that has been here before."""
    files = TEST_CONFIG, overlay(LR)
    (planned,) = (run for run in load_plan(*files) if run.id == ONE)
    theirs = tmp_path / "theirs"
    write_planned_run(theirs / "runs", planned)
    shutil.rmtree(copy / "results" / "test" / "runs" / ONE)
    assert east(copy, "merge", theirs, *configured(*files)).startswith("results/test: 1 taken, ")
    assert ONE in trained(planned_jobs(copy, *files))
    before = run_files(copy)[ONE]
    done = snakemake(copy, f"results/test/runs/{ONE}/summary.json", "--configfile", *files)
    assert done.returncode == 0, done.stderr
    assert run_files(copy)[ONE] == before
    assert would_train(copy, *files) == [run for run in RUNS if run != ONE]
