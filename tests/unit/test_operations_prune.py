import os
import time

import pytest

from east.config import make_plan, read_config
from east.errors import EastError
from east.operations.prune import Leftover, leftovers, remove
from east.render.contents import table_figures
from east.training.folder import locked
from tests.unit.fake_runs import PLAN, TEST_CONFIG, write_planned_run
from tests.unit.in_process import east

STATIC = "table2/static/seed1"
DROPPED = "table2/static/seed5"


@pytest.fixture
def results(tmp_path):
    """A results folder with all planned runs, and one that no plan names with its log and benchmark."""
    results = tmp_path / "results" / "test"
    for run in PLAN.values():
        write_planned_run(results / "runs", run)
    write_planned_run(results / "runs", PLAN[STATIC].model_copy(update={"id": DROPPED}))
    for path in (results / "logs" / "train" / f"{DROPPED}.log", results / "benchmarks" / "train" / f"{DROPPED}.tsv"):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    (results / "logs" / "train" / f"{STATIC}.log").write_text("x")
    return results


def prune(results, *options):
    return east("prune", "--configfile", TEST_CONFIG, "--results", results, *options)


def files(folder):
    return {path for path in folder.rglob("*") if not path.is_dir()}


def test_it_only_lists_unless_told_to_delete(results):
    before = files(results)
    done = prune(results)
    assert done.returncode == 0
    assert f"runs in no plan:\n  {DROPPED}  " in done.stdout
    assert "nothing was removed" in done.stdout
    assert files(results) == before


def test_deleting_takes_the_run_with_its_log_and_benchmark_and_nothing_else(results):
    before = files(results)
    done = prune(results, "--delete")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 removed." in done.stdout
    gone = before - files(results)
    assert {path for path in gone if DROPPED not in str(path)} == set()
    assert not [path for path in files(results) if DROPPED in str(path)]
    assert not (results / "benchmarks").exists()
    assert prune(results).stdout == f"Nothing in {results} is of no use to the plan.\n"


def test_a_table_that_the_plan_has_dropped_goes_with_its_figures_and_logs(results):
    dropped = [f"{part}/table4{ending}" for part, ending in (("tables", ".csv"), ("tables", ".html"))]
    dropped += ["aggregate/table4.json", "logs/aggregate/table4.log", "logs/figures/table4.log"]
    dropped += [f"figures/table4-{figure}.{form}" for figure in table_figures("grid") for form in ("png", "svg")]
    kept = ["tables/table2.csv", "tables/table6.csv", "tables/tableB1.md", "tables/runs.csv", "tables/notes.txt"]
    kept += ["figures/density.png", "figures/table2-churn.svg", "figures/table4-mine.png"]
    for name in dropped + kept:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).touch()
    assert "tables in no plan:\n  table4  " in prune(results).stdout
    prune(results, "--delete")
    assert [name for name in dropped + kept if (results / name).exists()] == kept


def test_checkpoints_go_once_the_run_is_finished_and_not_before(results):
    unfinished = results / "runs" / "table2/static/seed2"
    (unfinished / "summary.json").unlink()
    for folder in (results / "runs" / STATIC, unfinished):
        (folder / "checkpoint-000001.pt").write_bytes(b"x" * 2000)
    assert f"checkpoints of finished runs:\n  {STATIC}  2.0 kB\n" in prune(results).stdout
    prune(results, "--delete")
    assert not (results / "runs" / STATIC / "checkpoint-000001.pt").exists()
    assert (unfinished / "checkpoint-000001.pt").exists()


def test_a_checkpoint_of_a_run_of_other_settings_stays(results):
    folder = write_planned_run(results / "runs", PLAN[STATIC], 50.0, fingerprint="f" * 64)
    (folder / "checkpoint-000001.pt").touch()
    prune(results, "--delete")
    assert (folder / "checkpoint-000001.pt").exists()


def test_all_that_is_found_is_told_by_kind_and_name_with_its_size(results):
    folder = results / "runs" / "table2/static/seed2"
    (folder / "checkpoint-000002.pt").write_bytes(b"x" * 20)
    (folder / "checkpoint-000001.damaged").write_bytes(b"x" * 3)
    (folder / "checkpoint-000003.damaged").mkdir()
    (folder / "checkpoint-000003.pt").symlink_to(folder / "checkpoint-000002.pt")
    (results / ".incoming-link").symlink_to(results / "runs")
    for name in ("tables/table4.csv", "tables/table3x.md", "aggregate/table4.json"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_bytes(b"x" * 7)
    with locked(folder):
        found = leftovers(make_plan(read_config(TEST_CONFIG)), results)
    dropped = [*(results / "runs" / DROPPED).iterdir(), *results.rglob(f"{DROPPED}.*")]
    damaged = "damaged or half-written files of runs"
    run = results / "runs" / DROPPED
    assert found == [
        Leftover(
            "runs in no plan",
            DROPPED,
            (run, results / f"logs/train/{DROPPED}.log", results / f"benchmarks/train/{DROPPED}.tsv"),
            sum(path.stat().st_size for path in dropped),
            run,
        ),
        Leftover("tables in no plan", "table3x", (results / "tables/table3x.md",), 7),
        Leftover("tables in no plan", "table4", (results / "aggregate/table4.json", results / "tables/table4.csv"), 14),
        Leftover(
            *("checkpoints of finished runs", "table2/static/seed2", (folder / "checkpoint-000002.pt",), 20, folder),
            in_use=True,
        ),
        Leftover(damaged, "table2/static/seed2", (folder / "checkpoint-000001.damaged",), 3, folder, in_use=True),
    ]


def test_what_is_gone_already_is_removed_as_well(results):
    found = Leftover("tables in no plan", "table4", (results / "tables/table4.csv",), 0)
    assert remove(found, results)


def test_what_cannot_be_removed_is_named(results, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "not allowed", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    folder = results / "runs" / DROPPED
    with pytest.raises(EastError, match=f"{folder} cannot be removed: not allowed"):
        remove(Leftover("runs in no plan", DROPPED, (folder,), 0, folder), results)


def test_where_there_is_no_folder_there_is_nothing_to_remove(tmp_path):
    assert prune(tmp_path / "none").stderr.startswith(f"error: there is no folder {tmp_path}/none")


def test_damaged_and_half_written_files_go(results):
    folder = results / "runs" / STATIC
    broken = [folder / "checkpoint-000001.damaged", folder / ".metrics.csv.k3x_8abc"]
    for path in (*broken, folder / ".lock"):
        path.touch()
    assert f"damaged or half-written files of runs:\n  {STATIC}  " in prune(results).stdout
    prune(results, "--delete")
    assert not any(path.exists() for path in broken)
    assert (folder / ".lock").exists()
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize(("hours", "stays"), [(23, True), (25, False)])
def test_what_a_merge_left_that_was_killed_goes_after_a_day(results, hours, stays):
    folder = results / ".incoming-x1"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 1000)
    os.utime(folder, (time.time() - 3600 * hours,) * 2)
    assert (".incoming-x1  1.0 kB" in prune(results).stdout) != stays
    prune(results, "--delete")
    assert folder.exists() == stays


def test_a_day_is_over_when_more_than_a_day_has_passed(results, monkeypatch):
    folder, plan = results / ".incoming-x1", make_plan(read_config(TEST_CONFIG))
    folder.mkdir()
    os.utime(folder, (1_000_000, 1_000_000))
    for seconds, names in ((86_400, [DROPPED]), (86_401, [DROPPED, ".incoming-x1"])):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: 1_000_000.0 + seconds)
        assert [leftover.name for leftover in leftovers(plan, results)] == names


def test_a_run_that_trains_is_left_alone_and_named(results):
    folder = results / "runs" / DROPPED
    with locked(folder):
        assert f"{DROPPED}  " in (listed := prune(results).stdout)
        assert "(a training runs there: it stays)" in listed
        done = prune(results, "--delete")
    assert done.returncode == 1
    assert "0 of 1 removed." in done.stdout
    assert (folder / "summary.json").exists()


def test_links_are_neither_followed_nor_removed(results, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    run = write_planned_run(elsewhere, PLAN[STATIC].model_copy(update={"id": "table9/x/seed1"}))
    (results / "runs" / "table9").symlink_to(elsewhere / "table9")
    (results / "runs" / "table2" / "static" / "seed6").symlink_to(run)
    (results / "runs" / DROPPED / "link").symlink_to(run)
    (results / "tables").symlink_to(elsewhere)
    (elsewhere / "table4.csv").touch()
    done = prune(results, "--delete")
    assert done.returncode == 0
    assert "1 of 1 removed." in done.stdout
    assert (run / "summary.json").exists()
    assert (elsewhere / "table4.csv").exists()
    assert (results / "runs" / "table9").is_symlink()
    assert not (results / "runs" / DROPPED).exists()
