"""What a run says of itself: its summary, key by key, and its state while it goes on."""

import os
import re
import socket
from datetime import UTC, datetime, timedelta

import pytest
import torch

from east.checkout import Checkout
from east.engine.machine import processor_name
from east.errors import EastError
from east.models.liveness import Liveness
from east.models.parameters import ParameterCount
from east.training import assembly, provenance, run
from east.training.assembly import Training, assemble, initial_model
from east.training.describe import expected_workload, mask_updater
from east.training.folder import checkpoint_name, epochs_done, is_locked, locked, repeatable_summary
from east.training.hooks import Hook
from east.training.interrupt import Stopped
from east.training.provenance import Origin
from east.training.records import DIGEST, RunSummary, columns, read_summary, sealed_json
from east.training.run import Resources, train
from east.training.state import STATE, RunState, StateFile, slurm_job
from tests.unit.test_training_interrupt import StopAt
from tests.unit.test_training_loop import changed, rows

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(tiny_spec):
    """Two epochs of two steps, without a cycle."""
    training = {"epochs": 2, "batch_size": 700, "lr_drop_epochs": []}
    return changed(tiny_spec, cycle=None, training=training, sparsity={"update_period": 2})


class Watch(Hook):
    """Reads the state at every moment at which it is written."""

    def __init__(self, folder):
        self.folder, self.states = folder, []

    def on_begin(self, training):
        self.read()

    def after_epoch(self, training, record):
        self.read()

    def read(self):
        self.states.append(RunState.model_validate_json((self.folder / STATE).read_bytes()))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, spec, data_dir):
    """A run that was stopped after its third step, where three trainings shared the device, and has ended alone."""
    folder, threads = tmp_path_factory.mktemp("runs") / "table2" / "static" / "seed17", torch.get_num_threads()
    watch = Watch(folder)
    settings = {"device": "cpu", "engine": "dense", "data_dir": data_dir}
    with pytest.raises(Stopped):
        train(spec, folder, Resources(threads=2, runs_per_device=3, gpu="5", **settings), [watch, StopAt(3)])
    watch.read()
    stopped = {path.name for path in folder.iterdir()}
    train(spec, folder, Resources(threads=1, **settings), [watch])
    watch.read()
    torch.set_num_threads(threads)
    return folder, watch.states, stopped


def test_a_summary_says_of_a_run_all_that_is_known(resumed, spec):
    folder, _, _ = resumed
    summary, metrics, timing = (
        read_summary(folder / "summary.json"),
        rows(folder / "metrics.csv"),
        rows(folder / "timing.csv"),
    )
    best = max(metrics, key=lambda row: (float(row["val_acc"]), int(row["epoch"])))
    origin = Origin.of_this_process()
    ran = {
        "engine": "dense",
        "instruction_set": summary.instruction_set,
        "threads": 1,
        "commit": origin.commit,
        "code_digest": origin.code_digest,
        "versions": origin.versions,
        "device": processor_name(),
        "platform": origin.platform,
        "dataset_digest": summary.dataset_digest,
    }
    expected = ran | {
        "id": "table2/static/seed17",
        "run": spec.model_dump(mode="json"),
        "fingerprint": spec.fingerprint,
        "status": "finished",
        "diverged_at_epoch": None,
        "diverged_at_step": None,
        "final_test_accuracy": float(metrics[-1]["test_acc"]),
        "final_validation_accuracy": float(metrics[-1]["val_acc"]),
        "best_test_accuracy": float(best["test_acc"]),
        "best_epoch": int(best["epoch"]),
        "epochs": 2,
        "steps": 4,
        "nonzeros": int(metrics[-1]["nonzeros"]),
        "parameters": {"nonzero_weights": int(metrics[-1]["nonzeros"]), "batch_norm": 1064, "dyrelu": 0, "other": 0},
        "seconds": round(sum(float(row["seconds"]) for row in timing), 3),
        "attempts": 2,
        "runs_per_device": 3,
        "reproducibility": "statistical",
    }
    found = summary.model_dump(mode="json")
    assert {key: found[key] for key in expected} == expected
    assert round(0.03 * found["masked_weights"]) == found["nonzeros"]
    assert sum(found["executions"].values()) >= 37
    assert found["liveness"].keys() == Liveness.__annotations__.keys()
    assert found["liveness"]["live_channels"] == int(metrics[-1]["live_channels"])
    assert found["parameters"].keys() == ParameterCount.__annotations__.keys()
    assert 10 < found["peak_memory_mb"] < 100_000
    assert round(found["peak_memory_mb"], 1) == found["peak_memory_mb"]
    assert list(found["files"]) == [
        "metrics.csv",
        "run.json",
        "timing.csv",
        "trace.csv",
        "updates.csv",
        "weights.safetensors",
    ]
    first, second = found["attempt_records"]
    assert {key: second[key] for key in ran} == ran
    assert [(each["attempt"], each["first_step"], each["last_step"]) for each in (first, second)] == [
        (1, 1, 3),
        (2, 4, 4),
    ]
    assert [(each["threads"], each["choice"]) for each in (first, second)] == [(2, "dense"), (1, "dense")]
    assert first["started"] <= first["ended"] <= second["started"] <= second["ended"]
    assert found.keys() == {column.name for column in columns(RunSummary)}


def test_the_state_says_at_every_moment_where_a_run_is(resumed, spec):
    folder, states, _ = resumed
    metrics = rows(folder / "metrics.csv")
    accuracies = [None, *(float(row["test_acc"]) for row in metrics)]
    assert [(s.state, s.attempt, s.epoch, s.step, s.test_accuracy) for s in states] == [
        ("running", 1, 0, 0, None),
        ("running", 1, 1, 2, accuracies[1]),
        ("stopped", 1, 1, 3, accuracies[1]),
        ("running", 2, 1, 3, accuracies[1]),
        ("running", 2, 2, 4, accuracies[2]),
        ("ended", 2, 2, 4, accuracies[2]),
    ]
    assert [s.seconds_per_epoch is None for s in states] == [True, *[False] * 5]
    first, last = states[0], states[-1]
    assert [(s.gpu, s.threads, s.runs_per_device) for s in (first, last)] == [("5", 2, 3), (None, 1, 1)]
    for state in states:
        assert (state.epochs, state.host, state.pid, state.message) == (2, socket.gethostname(), os.getpid(), None)
        assert state.device == processor_name()
        assert state.started <= state.updated <= datetime.now(UTC) < state.started + timedelta(hours=1)
    assert first.started == states[2].started < last.started
    assert (folder / STATE).read_text().startswith('{\n  "state": "ended",\n')


def test_files_for_people_have_lines(resumed):
    folder, _, _ = resumed
    for name in ("run.json", "summary.json", "state.json"):
        text = (folder / name).read_text()
        assert re.match(r'\{\n  "\w', text)
        assert text.endswith("}\n")
    assert (folder / "summary.kept.json").read_bytes() == (folder / "summary.json").read_bytes()


def test_a_stopped_run_leaves_what_it_goes_on_from_and_one_that_has_ended_only_its_result(resumed):
    folder, _, stopped = resumed
    result = {"run.json", "metrics.csv", "updates.csv", "trace.csv", "timing.csv", "state.json", ".lock"}
    checkpoints = {checkpoint_name(1), checkpoint_name(1, 1)}
    assert stopped == result | checkpoints | {"attempts.json"}
    ended = {"summary.json", "summary.kept.json", "weights.safetensors"}
    assert {path.name for path in folder.iterdir()} == result | ended


class StoppedAtOnce(Hook):
    """As by a signal that comes before the loop has begun."""

    def on_begin(self, training):
        raise Stopped(15)


def test_an_attempt_that_is_stopped_before_its_first_batch_takes_no_time(tmp_path, spec, data_dir):
    settings = Resources(device="cpu", engine="dense", data_dir=data_dir)
    for hook in (StopAt(1), StoppedAtOnce()):
        with pytest.raises(Stopped):
            train(spec, tmp_path, settings, [hook])
    summary = train(spec, tmp_path, settings)
    assert [row["attempt"] for row in rows(tmp_path / "timing.csv")] == ["1", "3", "3"]
    assert [record["first_step"] for record in summary.attempt_records] == [1, None, 2]
    assert summary.seconds < 600


class Asked(Exception):
    pass


@pytest.mark.parametrize(
    ("device", "engine", "kind", "chosen", "is_static"),
    [
        ("cpu", "auto", "eager", "sparse", False),
        ("cpu", "dense", "eager", "dense", False),
        ("cuda", "auto", "compiled", "auto", True),
        ("cuda", "sparse", "captured", "sparse", True),
    ],
)
def test_the_engine_is_asked_for_what_the_run_needs(spec, monkeypatch, device, engine, kind, chosen, is_static):
    """The vectors of active weights have room for the peak where graphs know them by address."""
    asked = {}

    def make_engine(name, model, active, **settings):
        asked.update(settings, name=name, active=active)
        raise Asked

    monkeypatch.setattr(assembly, "make_engine", make_engine)
    model = initial_model(spec, 10)
    masks = mask_updater(model, spec, 2)
    masks.initialise()
    with pytest.raises(Asked):
        assemble(spec, model, masks, device=torch.device(device), engine=engine, kind=kind)
    active = asked.pop("active")
    assert {weights.is_static for weights in active.values()} == {is_static}
    peak = masks.peak_counts()
    assert not is_static or all(len(weights.values) >= min(peak[name], 1) for name, weights in active.items())
    assert asked == {
        "name": chosen,
        "numerics": "tf32",
        "device": torch.device(device),
        "workload": expected_workload(spec.training),
        "compiled": kind == "compiled",
    }


def test_a_training_is_opened_on_its_own_data_and_in_the_way_that_is_asked_for(spec, monkeypatch, data_dir):
    asked = {}
    monkeypatch.setattr(run, "open_dataset", lambda *given, **keys: asked.update(keys, given=given) or "data")
    monkeypatch.setattr(run, "choose_step", lambda name, device: f"{name} on {device}")
    monkeypatch.setattr(Training, "begin", lambda *given, **keys: (given, keys))
    settings = Resources(engine="dense", data_dir=data_dir, image_folder=data_dir / "x", step="captured")
    found = run.open_and_begin(spec, settings, CPU, {"a": 1})
    assert asked == {
        "given": (spec.dataset,),
        "training_batch": 700,
        "seed": spec.seed,
        "data_dir": data_dir,
        "device": CPU,
        "folder": data_dir / "x",
    }
    kind = "captured on cpu"
    assert found == ((spec, "data"), {"device": CPU, "engine": "dense", "kind": kind, "state": {"a": 1}})


# The folder


def test_a_folder_is_locked_while_somebody_holds_it_or_nobody_can_say(tmp_path):
    assert not is_locked(tmp_path / "nothing")
    with locked(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
    assert not is_locked(tmp_path / "run")
    (tmp_path / "file").touch()
    assert is_locked(tmp_path / "file")


@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        ([], None),
        (["checkpoint-000001-000003.pt"], 0),
        (["checkpoint-000002.pt", "checkpoint-000003.pt"], 3),
        (["checkpoint-000003.pt", "checkpoint-000004-000001.pt"], 3),
        (["checkpoint-000003.pt", "checkpoint-mine.pt"], 3),
    ],
)
def test_epochs_that_are_done_are_those_of_the_newest_checkpoint(tmp_path, names, epochs):
    for name in names:
        (tmp_path / name).touch()
    assert epochs_done(tmp_path) == epochs


def test_names_of_checkpoints_are_in_the_order_of_their_states():
    states = [(0, 3), (1, 0), (1, 1), (1, 20), (2, 0), (10, 0)]
    names = [checkpoint_name(*state) for state in states]
    assert names == sorted(names)
    assert names[:3] == ["checkpoint-000001-000003.pt", "checkpoint-000001.pt", "checkpoint-000002-000001.pt"]


# summary.json and the program behind it


def test_sealed_json_never_changes():
    digest = "1c6e9e1e92b8d1d5246b5ebb3591fcd42716c42b8323a237d3ebd430be8cc8ff"
    assert sealed_json({"b": 1, "a": [0.5], DIGEST: "of before"}) == (
        f'{{\n  "b": 1,\n  "a": [\n    0.5\n  ],\n  "sha256": "{digest}"\n}}\n'
    )
    with pytest.raises(ValueError, match="JSON"):
        sealed_json({"a": float("nan")})


def test_what_two_trainings_have_in_common_says_nothing_of_the_machine():
    known = {"fingerprint": "a", "status": "finished", "final_test_accuracy": 81.5, "best_epoch": None}
    assert repeatable_summary(RunSummary(id="t/r/s", seconds=3.0, threads=4, sha256="b", **known)) == known


@pytest.mark.parametrize(("runs", "is_shared"), [(None, False), (1, False), (2, True)])
def test_a_run_is_shared_where_another_may_have_slowed_it_down(runs, is_shared):
    summary = RunSummary(id="a", fingerprint="b", status="diverged", final_test_accuracy=None, runs_per_device=runs)
    assert summary.is_shared == is_shared


def test_the_origin_names_versions_and_not_more_changes_than_anybody_reads(monkeypatch):
    changes = tuple(f"{number}\udcff.py" for number in range(25))
    monkeypatch.setattr(provenance, "look_up", lambda: Checkout("c0ffee", changes))
    origin = Origin.of_this_process()
    assert origin.versions.keys() == {"python", "torch", "numpy", "east"}
    assert origin.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert origin.changes == tuple(f"{number}\\udcff.py" for number in range(20))
    assert re.fullmatch("[0-9a-f]{16}", origin.code_digest)
    assert (origin.commit, origin.checkout) == ("c0ffee+changes", "")


# state.json


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "0"}, "5_0"),
    ],
)
def test_a_job_is_named_as_slurm_names_it(tmp_path, monkeypatch, variables, job):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_job() == job
    state = StateFile(tmp_path, epochs=3, device="auto", threads=1).state
    assert (state.job, state.state, state.attempt, state.epoch, state.epochs, state.step) == (
        job,
        "running",
        1,
        0,
        3,
        0,
    )
    assert (state.gpu, state.runs_per_device, state.test_accuracy) == (None, 1, None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (EastError("of two\nlines\x1b[2J"), "of two lines"),
        (ValueError("mine"), "ValueError: mine"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x"),
    ],
)
def test_a_failure_is_noted_in_one_line(tmp_path, error, message):
    file = StateFile(tmp_path, epochs=3, device="auto", threads=1)
    with pytest.raises(type(error)), file.failures_noted():
        raise error
    state = RunState.model_validate_json((tmp_path / STATE).read_bytes())
    assert state.state == "failed"
    assert message in state.message
    assert "\n" not in state.message
    assert "\x1b" not in state.message


def test_a_failure_is_not_hidden_by_one_to_note_it(tmp_path):
    file = StateFile(tmp_path / "gone" / "away", epochs=3, device="auto", threads=1)
    (tmp_path / "gone").touch()
    with pytest.raises(ValueError, match="mine"), file.failures_noted():
        raise ValueError("mine")
