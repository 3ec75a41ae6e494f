import json
import os
import shutil

import pytest

from east.operations.on_disk import SMALL_FILES
from east.training.folder import locked
from east.training.records import TimingRecord
from tests.unit.fake_runs import DIVERGED, PLAN, TEST_CONFIG, seal, write_curve, write_planned_run, write_rows
from tests.unit.in_process import east

STATIC = PLAN["table2/static/seed1"]


@pytest.fixture
def theirs(tmp_path):
    return tmp_path / "theirs"


@pytest.fixture
def ours(tmp_path):
    return tmp_path / "ours"


def merge(theirs, ours, *options):
    return east("merge", theirs, "--configfile", TEST_CONFIG, "--results", ours, *options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_finished_runs_are_taken_whole(theirs, ours):
    for run in PLAN.values():
        folder = write_planned_run(theirs / "runs", run)
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events").write_text("x")
    there = write_planned_run(ours / "runs", STATIC)
    before = contents(there)
    done = merge(theirs, ours)
    assert (done.returncode, done.stdout) == (0, f"{ours}: 5 taken, 1 there already, 0 refused.\n")
    assert contents(there) == before
    for run in PLAN:
        for name in ("summary.json", "run.json", "metrics.csv", "updates.csv", "trace.csv", "timing.csv"):
            assert (ours / "runs" / run / name).read_bytes() == (theirs / "runs" / run / name).read_bytes()
    taken = ours / "runs" / "table3/triangular-m3-n1/seed1"
    assert (taken / "tensorboard" / "events").exists()
    assert (taken / "summary.kept.json").read_bytes() == (taken / "summary.json").read_bytes()
    assert [path.name for path in ours.iterdir()] == ["runs"]


def test_a_dry_run_says_the_same_and_takes_nothing(theirs, ours):
    write_planned_run(theirs / "runs", STATIC)
    done = merge(theirs, ours, "--dry-run")
    assert (done.returncode, done.stdout) == (0, f"{ours}: 1 to take, 0 there already, 0 refused.\n")
    assert not ours.exists()


def test_what_belongs_to_a_process_elsewhere_stays_there(theirs, ours):
    folder = write_planned_run(theirs / "runs", STATIC)
    for name in (".lock", "checkpoint-000002.pt", "checkpoint-000001.damaged", "state.json", ".summary.json.abcdefgh"):
        (folder / name).touch()
    assert merge(theirs, ours).returncode == 0
    names = {"summary.json", "summary.kept.json", *SMALL_FILES}
    assert {path.name for path in (ours / "runs" / STATIC.id).iterdir()} == names


def test_unfinished_runs_and_runs_of_other_plans_are_passed_over(theirs, ours):
    (write_planned_run(theirs / "runs", STATIC) / "summary.json").unlink()
    other = PLAN["table2/static/seed2"]
    spec = other.spec.model_copy(update={"seed": 9})
    write_planned_run(theirs / "runs", other.model_copy(update={"id": "table2/static/seed9", "spec": spec}))
    done = merge(theirs, ours)
    assert (done.returncode, done.stdout) == (0, f"{ours}: 0 taken, 0 there already, 0 refused.\n")


def test_a_run_that_another_plan_trained_under_another_name_is_found(theirs, ours):
    write_planned_run(theirs / "runs", STATIC.model_copy(update={"id": "tablemethods/rigl/seed1"}))
    assert merge(theirs, ours).stdout == f"{ours}: 1 taken, 0 there already, 0 refused.\n"
    assert (ours / "runs" / STATIC.id / "summary.json").exists()


def other_settings(folder):
    spec = STATIC.spec.model_dump(mode="json")
    spec["training"]["lr"] = 0.2
    write_planned_run(folder.parents[2], STATIC, 50.0, run=spec, fingerprint="f" * 64)


def another_revision(folder):
    spec = STATIC.spec.model_dump(mode="json") | {"revision": 2}
    write_planned_run(folder.parents[2], STATIC, 50.0, run=spec, fingerprint="f" * 64)


def another_run_in(name):
    def change(folder):
        path = folder / name
        content = json.loads(path.read_text())
        (content["run"] if name == "summary.json" else content)["seed"] = 7
        path.write_text(json.dumps(content))
        seal(folder / "summary.json")

    return change


def more_metrics(folder, text):
    with (folder / "metrics.csv").open("a") as stream:
        stream.write(text)
    seal(folder / "summary.json")


def cut_weights(folder):
    (folder / "weights.safetensors").write_bytes(b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[4],')


BROKEN = {
    "a missing file": (lambda folder: (folder / "metrics.csv").unlink(), "its metrics.csv is missing"),
    "several": (
        lambda folder: [(folder / name).unlink() for name in ("timing.csv", "run.json")],
        "its run.json, timing.csv are missing",
    ),
    "half a summary": (
        lambda folder: (folder / "summary.json").write_text('{"id": "table2'),
        "its summary.json cannot be read",
    ),
    "other settings": (other_settings, "it was trained with other settings (training.lr 0.2 -> 0.1)"),
    "another revision": (another_revision, "it was trained under revision 2; this is 3: the arithmetic changed"),
    "another run in its summary": (another_run_in("summary.json"), "describes another run than the fingerprint says"),
    "another run in its run.json": (another_run_in("run.json"), "describes another run than the fingerprint says"),
    "metrics that stop early": (
        lambda folder: write_curve(folder, [10.0]),
        "its metrics.csv does not end as its summary.json says",
    ),
    "metrics of other numbers": (
        lambda folder: write_curve(folder, [10.0, 51.0]),
        "its metrics.csv does not end as its summary.json says",
    ),
    "metrics that are none": (
        lambda folder: (folder / "metrics.csv").write_bytes(b"\xff\xfe"),
        "its metrics.csv is missing, or not as it was written",
    ),
    "metrics without rows": (
        lambda folder: write_curve(folder, []),
        "its metrics.csv does not end as its summary.json says",
    ),
    "metrics with half a line more": (
        lambda folder: more_metrics(folder, "3,"),
        "its metrics.csv does not end as its summary.json says",
    ),
    "weights that are a folder": (
        lambda folder: (folder / "weights.safetensors").mkdir(),
        "its weights.safetensors cannot be read (Is a directory)",
    ),
    "half the weights": (cut_weights, "its weights.safetensors is damaged"),
    "a link": (lambda folder: (folder / "more").symlink_to("/etc"), "there is a link in its folder"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_run_that_is_not_whole_is_refused_by_name(theirs, ours, what):
    damage, reason = BROKEN[what]
    damage(write_planned_run(theirs / "runs", STATIC))
    write_planned_run(theirs / "runs", PLAN["table2/static/seed2"])
    done = merge(theirs, ours)
    assert done.returncode == 1
    refused, counted = done.stdout.splitlines()
    assert refused.startswith(f"refused {STATIC.id}: ")
    assert reason in refused
    assert counted == f"{ours}: 1 taken, 0 there already, 1 refused."
    assert not (ours / "runs" / STATIC.id).exists()


def test_weights_go_with_the_run_if_they_are_whole(theirs, ours):
    folder = write_planned_run(theirs / "runs", STATIC)
    (folder / "weights.safetensors").write_bytes(b"weights")
    seal(folder / "summary.json")
    os.utime(folder / "metrics.csv", (1000, 1000))
    assert merge(theirs, ours / "deep" / "results").returncode == 0
    taken = ours / "deep/results/runs" / STATIC.id
    assert (taken / "weights.safetensors").read_bytes() == b"weights"
    assert (taken / "metrics.csv").stat().st_mtime > 1000, "so that tables are made again"


def refuse(number):
    raise OSError(5, "Input/output error")


def file_in_place_of_the_results(ours, monkeypatch):
    ours.write_text("")
    return "File exists"


def disk_that_fails(ours, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse)
    return ": Input/output error"


@pytest.mark.parametrize("trouble", [file_in_place_of_the_results, disk_that_fails])
def test_a_run_that_cannot_be_copied_is_refused_with_the_reason(theirs, ours, monkeypatch, trouble):
    write_planned_run(theirs / "runs", STATIC)
    reason = trouble(ours, monkeypatch)
    refused = merge(theirs, ours).stdout.splitlines()[0]
    assert refused.startswith(f"refused {STATIC.id}: it cannot be copied: ")
    assert refused.endswith(f"{reason}.")
    assert "[" not in refused
    assert not ours.is_dir() or list(ours.iterdir()) == []


def test_a_run_is_whole_before_it_comes_to_its_place(theirs, ours, monkeypatch):
    seen = []
    monkeypatch.setattr("east.operations.merge.move_run", lambda folder, place: seen.append((folder, place)))
    write_planned_run(theirs / "runs", STATIC)
    merge(theirs, ours)
    [(folder, place)] = seen
    assert (folder.parent.parent, folder.parent.name[:10]) == (ours, ".incoming-")
    assert place == ours / "runs" / STATIC.id


def test_what_is_no_folder_of_results_is_refused(theirs, ours):
    theirs.mkdir()
    assert merge(theirs, ours).stderr.startswith(f"error: {theirs} has no folder runs.")


def test_a_diverged_run_is_compared_as_one(theirs, ours):
    write_planned_run(theirs / "runs", STATIC)
    folder = write_planned_run(ours / "runs", STATIC, DIVERGED, epochs=1)
    write_curve(folder, [10.0])
    assert "with other numbers (diverged here, 50.00 % there); the one here stays" in merge(theirs, ours).stdout


def test_a_run_of_both_must_have_the_same_numbers_but_not_the_same_seconds(theirs, ours):
    write_planned_run(ours / "runs", STATIC)
    folder = write_planned_run(theirs / "runs", STATIC, 50.0, seconds=99.0, device="another")
    write_rows(folder, TimingRecord, {"epoch": 1, "seconds": 9.5})
    assert merge(theirs, ours).stdout == f"{ours}: 0 taken, 1 there already, 0 refused.\n"
    here = contents(write_planned_run(ours / "runs", STATIC, 50.5))
    done = merge(theirs, ours)
    assert done.returncode == 1
    assert f"refused {STATIC.id}: it was trained here as well, with other numbers (50.50 % here, 50.00 %" in done.stdout
    assert contents(ours / "runs" / STATIC.id) == here


def test_a_run_that_is_begun_or_stale_here_stays_and_is_named(theirs, ours):
    write_planned_run(theirs / "runs", STATIC)
    folder = write_planned_run(ours / "runs", STATIC)
    (folder / "summary.json").unlink()
    assert f"{folder} is in its way (it is not finished); remove that to take it" in merge(theirs, ours).stdout
    with locked(folder):
        assert f"refused {STATIC.id}: it is being trained here." in merge(theirs, ours).stdout
    assert (folder / "metrics.csv").exists()
    shutil.rmtree(folder)
    folder.mkdir()  # as Snakemake does before a job
    assert merge(theirs, ours).returncode == 0
