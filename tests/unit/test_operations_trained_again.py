"""`east verify` of results that another training has made of the runs of a lock."""

import json
import shutil
from functools import cache

import pytest

from east.config import load_plan, make_plan, read_config
from east.operations.results_lock import folder_contents, make_lock
from east.operations.trained_again import Compared, compare
from east.training.records import TimingRecord
from tests.unit.fake_runs import DIVERGED, TEST_CONFIG, write_planned_run, write_rows, write_steps
from tests.unit.in_process import east

RUNS = load_plan(TEST_CONFIG)[:4]
ROW = [run for run in RUNS if run.id.startswith("table2/static/")]
ONE = ROW[0]
ANY, PROCESSOR = "any processor", "this processor, threads and PyTorch"
MACHINE = {"device": "A", "threads": 1, "instruction_set": "avx2", "versions": {"torch": "2.13", "numpy": "2.1"}}
ELSEWHERE = {"device": "B", "threads": 2, "instruction_set": "avx512", "versions": {"torch": "2.11", "numpy": "2.0"}}
DENSE = {"reproducibility": PROCESSOR, "engine": "dense"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes results whose summaries say this, with their lock; once for equal ones."""

    @cache
    def make(keys):
        results = tmp_path_factory.mktemp("made")
        for run in RUNS:
            write_planned_run(results / "runs", run, 50.0, **(MACHINE | dict(keys)))
        write_steps(results, "cost", "aggregate/table2", "tables/table2", "tables/table6")
        done = east("lock", "--configfile", TEST_CONFIG, "--results", results)
        assert done.returncode == 0, done.stderr
        return results

    return make


@pytest.fixture
def published(made, tmp_path):
    """Gives the lock and the folder of results that may be changed."""

    def publish(**keys):
        results = shutil.copytree(made(tuple(keys.items())), tmp_path / "published")
        return results / "results.lock.json", results

    return publish


def train_again(results, run, accuracy=50.0, /, **keys):
    """The run as another training leaves it: seconds are others in any case."""
    folder = write_planned_run(results / "runs", run, accuracy, seconds=61.0, **(MACHINE | keys))
    write_rows(folder, TimingRecord, {"epoch": 1, "seconds": 3.5})
    return folder


def verify(lock, results, *options):
    return east("verify", lock, results, *options)


def test_the_same_bytes_from_any_machine_are_as_the_lock_says(published):
    lock, results = published()
    for run in RUNS:
        train_again(results, run, attempts=3, peak_memory_mb=9.0, commit="other", **ELSEWHERE)
    (results / "cost" / "cost.json").write_text("other times")
    done = verify(lock, results)
    assert done.returncode == 0, done.stdout
    assert done.stdout == (
        f"not compared: cost/cost.json\n28 files of 4 runs in {results} are as {lock} says; "
        "4 runs were trained again, to the same bytes.\n"
    )


def test_other_times_count_only_where_something_was_trained(published):
    lock, results = published()
    (results / "cost" / "cost.json").write_text("other times")
    done = verify(lock, results)
    assert (done.returncode, done.stdout) == (1, "cost/cost.json is not the locked file\n")


@pytest.mark.parametrize("name", ["metrics.csv", "updates.csv", "trace.csv"])
def test_a_class_that_promises_the_same_bytes_is_held_to_it(published, name):
    lock, results = published()
    folder = train_again(results, ONE, **ELSEWHERE)
    with (folder / name).open("a") as stream:
        stream.write("9,9\n")
    done = verify(lock, results)
    assert done.returncode == 1
    assert f"runs/{ONE.id} was trained again and is not the same ({name}; 50.00 % here, 50.00 % in the lock)" in (
        done.stdout
    )


def test_a_summary_that_is_not_the_same_is_named_and_so_is_other_code(published):
    lock, results = published()
    train_again(results, ONE, nonzeros=7, code_digest="d2")
    done = verify(lock, results)
    assert f"runs/{ONE.id} was trained again, by other code and is not the same (summary.json; " in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("name", MACHINE)
def test_a_dense_run_of_other_surroundings_differs_with_the_reason(published, name):
    lock, results = published(**DENSE)
    train_again(results, ONE, 60.0, **DENSE, **{name: ELSEWHERE[name]})
    reasons = {
        "device": "on another processor or GPU (B, not A)",
        "threads": "with 2 threads instead of 1",
        "instruction_set": "with avx512 instead of avx2",
        "versions": "with torch 2.11 instead of 2.13",
    }
    done = verify(lock, results)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0] == (
        f"{ONE.id}: 60.00 % here, 50.00 % in the lock; not to the bit: trained {reasons[name]} by the dense engine"
    )
    assert "are as" in done.stdout.splitlines()[-1]
    assert ", as far as their classes promise the same bytes" in done.stdout.splitlines()[-1]


def test_a_dense_run_of_the_same_surroundings_must_be_the_same(published):
    lock, results = published(**DENSE)
    train_again(results, ONE, 60.0, **DENSE, versions={"torch": "2.13", "numpy": "2.0"})
    done = verify(lock, results)
    assert done.returncode == 1
    assert f"although both are reproducible on {PROCESSOR}" in done.stdout


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"reproducibility": "statistical", "engine": "dense"}, "the dense engine's run is reproducible statistically"),
        ({"reproducibility": None}, "a class of reproducibility is not recorded"),
        (DENSE | {"threads": 2}, "with 2 threads instead of 1, against the sparse engine"),
    ],
)
def test_the_weaker_class_of_the_two_decides(published, keys, reason):
    lock, results = published()
    train_again(results, ONE, 60.0, **keys)
    (results / "tables" / "table2.csv").write_text("other numbers")
    done = verify(lock, results)
    assert done.returncode == 0, done.stdout
    assert reason in done.stdout
    assert "not compared: tables/table2.csv" in done.stdout


@pytest.mark.parametrize(
    ("accuracies", "status", "verdict"),
    [
        ((49.0, 51.5), 0, "no more than chance explains"),
        ((50.6, 50.7), 0, "no more than chance explains (p = 0.019)"),
        ((50.9, 51.0), 1, ": more than chance explains (p = 0.0077)"),
        ((90.0, 90.2), 1, ": more than chance explains (p = "),
    ],
)
def test_rows_are_compared_by_their_means(published, accuracies, status, verdict):
    statistical = {"reproducibility": "statistical"}
    lock, results = published(**statistical)
    for run, accuracy in zip(ROW, (50.1, 50.2), strict=False):
        train_again(results, run, accuracy, **statistical)
    east("lock", "--configfile", TEST_CONFIG, "--results", results)
    for run, accuracy in zip(ROW, accuracies, strict=False):
        train_again(results, run, accuracy, **statistical, attempts=2)
    done = verify(lock, results)
    assert done.returncode == status, done.stdout
    assert f"table2/static: mean of 2 runs {sum(accuracies) / 2:.2f} % here, of 2 50.15 % in the lock" in done.stdout
    assert verdict in done.stdout


def test_a_run_of_other_settings_or_with_a_file_missing_is_wrong_in_any_class(published):
    lock, results = published(reproducibility="statistical")
    folder = train_again(results, ONE, DIVERGED, reproducibility="statistical", epochs=1)
    (folder / "trace.csv").unlink()
    train_again(results, RUNS[1], fingerprint="f" * 64)
    done = verify(lock, results)
    assert done.returncode == 1
    assert f"runs/{ONE.id}/trace.csv is missing" in done.stdout
    assert f"runs/{RUNS[1].id}/summary.json is not the locked file" in done.stdout
    assert f"{ONE.id}: diverged here, 50.00 % in the lock" in done.stdout


def test_what_is_not_there_cannot_be_compared(published):
    lock, results = published()
    done = verify(lock, results / "none")
    assert (done.returncode, done.stderr) == (1, f"error: there is no {results}/none to compare with {lock}.\n")


def test_exactly_means_the_locked_files(published):
    lock, results = published()
    train_again(results, ONE)
    assert verify(lock, results).returncode == 0
    done = verify(lock, results, "--exact")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"runs/{ONE.id}/summary.json is not the locked file",
        f"runs/{ONE.id}/timing.csv is not the locked file",
    ]


def test_a_lock_of_another_version_is_refused_in_a_sentence(published):
    lock, results = published()
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"format": 1}))
    done = verify(lock, results)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {lock} was made by another version of this program: its format is 1")


def test_all_that_a_comparison_finds(tmp_path):
    """One run is the same, one differs though it must not, and one row differs by more than chance."""
    same, wrong, *row = RUNS
    statistical, results = {"reproducibility": "statistical"}, tmp_path / "results"
    for run, accuracy in zip(RUNS, (50.0, 50.0, 50.0, 50.3), strict=True):
        write_planned_run(results / "runs", run, accuracy, **MACHINE, **(statistical if run in row else {}))
    write_steps(results, "cost", "aggregate/table2", "tables/table2", "tables/table6")
    lock = make_lock(make_plan(read_config(TEST_CONFIG)), results)
    for run, accuracy in zip(RUNS, (50.0, 51.0, 60.0, 60.3), strict=True):
        train_again(results, run, accuracy, **(statistical if run in row else {}))
    contents = folder_contents(lock, results)
    del contents["tables/table6.csv"], contents[f"runs/{same.id}/run.json"]
    contents["tables/table2.csv"] = b"other numbers"
    found = compare(lock, contents)
    name = row[0].id.rpartition("/")[0]
    means = f"{name}: mean of 2 runs 60.15 % here, of 2 50.15 % in the lock"
    reason = "not to the bit: the sparse engine's run is reproducible statistically only"
    assert found == Compared(
        wrong=(
            f"runs/{same.id}/run.json is missing",
            f"runs/{wrong.id} was trained again and is not the same (metrics.csv; 51.00 % here, 50.00 % in the lock), "
            "although both are reproducible on any processor",
            f"{means}: more than chance explains (p = 0.00045)",
        ),
        differing=(
            f"{row[0].id}: 60.00 % here, 50.00 % in the lock; {reason}",
            f"{row[1].id}: 60.30 % here, 50.30 % in the lock; {reason}",
        ),
        passed_over=("tables/table2.csv",),
        files=6 * 4 - 1 + 2 + 1,
        repeated=1,
    )


def test_a_row_of_which_one_run_diverged_has_no_mean(published):
    statistical = {"reproducibility": "statistical"}
    lock, results = published(**statistical)
    train_again(results, ROW[0], DIVERGED, **statistical, epochs=1)
    train_again(results, ROW[1], 60.0, **statistical)
    done = verify(lock, results)
    assert "mean of" not in done.stdout
    assert f"{ROW[0].id}: diverged here, 50.00 % in the lock" in done.stdout


def test_what_its_device_and_versions_promise_other_versions_need_not_keep(published):
    device = {"reproducibility": "this device and versions"}
    lock, results = published(**device)
    train_again(results, ONE, 60.0, **device, versions={"torch": "2.13", "numpy": "2.0"})
    assert "trained with numpy 2.0 instead of 2.1 by the sparse engine" in verify(lock, results).stdout


def test_a_summary_that_is_none_is_not_the_locked_file(published):
    lock, results = published()
    (results / "runs" / ONE.id / "summary.json").write_text("{}")
    assert verify(lock, results).stdout == f"runs/{ONE.id}/summary.json is not the locked file\n"
