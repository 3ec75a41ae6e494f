import csv
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from safetensors.torch import load_file

from east.checkout import Checkout, sources
from east.config import RunSpec
from east.errors import EastError
from east.training import loop, provenance
from east.training.assembly import initial_model
from east.training.device import choose_device
from east.training.folder import REPEATABLE, locked, repeatable_summary
from east.training.hooks import Hook
from east.training.journal import attempts_begun
from east.training.loop import is_finite
from east.training.provenance import refuse_changes
from east.training.records import read_summary
from east.training.run import Resources, train


def changed(spec, **sections):
    content = spec.model_dump()
    for section, changes in sections.items():
        content[section] = (content[section] or {}) | changes if isinstance(changes, dict) else changes
    return RunSpec.model_validate(content)


@pytest.fixture
def resources(data_dir):
    return Resources(device="cpu", threads=1, data_dir=data_dir)


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


class AtEpoch(Hook):
    """Does something after an epoch."""

    def __init__(self, act, epoch=None):
        self.act, self.epoch = act, epoch

    def after_epoch(self, training, record):
        if self.epoch in (None, record.epoch):
            self.act()


class AtBatch(Hook):
    """Does something before every batch."""

    def __init__(self, act):
        self.act = act

    def before_batch(self, training):
        self.act()


def interrupt():
    raise Interrupted


def interrupt_at(epoch):
    return [AtEpoch(interrupt, epoch)]


def results(folder):
    return {name: (folder / name).read_bytes() for name in REPEATABLE}


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_spec, data_dir):
    folder = tmp_path_factory.mktemp("runs") / "table2" / "cosine" / "seed17"
    summary = train(tiny_spec, folder, Resources(device="cpu", threads=1, data_dir=data_dir))
    return folder, summary


def test_a_run_leaves_its_summary_records_and_weights(finished, tiny_spec):
    folder, summary = finished
    assert summary == read_summary(folder / "summary.json")
    assert summary.status == "finished"
    assert summary.fingerprint == tiny_spec.fingerprint
    assert summary.id == "table2/cosine/seed17"
    assert summary.run == tiny_spec.model_dump(mode="json")
    metrics = rows(folder / "metrics.csv")
    assert [row["epoch"] for row in metrics] == ["1", "2", "3", "4"]
    assert float(metrics[-1]["test_acc"]) == summary.final_test_accuracy
    assert [float(row["lr"]) for row in metrics] == [0.1, 0.1, 0.1, 0.01]
    assert summary.seconds == pytest.approx(sum(float(row["seconds"]) for row in rows(folder / "timing.csv")), abs=0.01)
    assert not list(folder.glob("checkpoint*"))


def test_the_density_follows_the_cycle_and_ends_exactly_at_the_target(finished):
    folder, summary = finished
    updates = rows(folder / "updates.csv")
    total = summary.masked_weights
    assert summary.nonzeros == round(0.03 * total) == int(updates[-1]["nonzeros"])
    # 1,438 - 144 images in batches of 256: 6 steps an epoch, a cycle of 12 steps, updates at every second step
    assert [(row["kind"], int(row["step"])) for row in updates] == [
        ("initial", 0),
        *(("cycle", step) for step in (2, 4, 6, 8, 10)),
        ("return", 12),
        *(("exchange", step) for step in (14, 16, 18, 20, 22)),
    ]
    for row in updates:
        assert int(row["nonzeros"]) == round(float(row["density"]) * total)
    peak = max(int(row["nonzeros"]) for row in updates)
    assert 2.5 * summary.nonzeros < peak <= 3 * summary.nonzeros


def test_saved_weights_are_zero_where_their_mask_is_off(finished):
    folder, summary = finished
    weights = load_file(folder / "weights.safetensors")
    masks = {name: tensor for name, tensor in weights.items() if name.endswith(".mask")}
    assert sum(int(mask.sum()) for mask in masks.values()) == summary.nonzeros
    for name, mask in masks.items():
        assert (weights[name.removesuffix("mask") + "weight"][~mask] == 0).all()


@pytest.mark.parametrize("epochs", [[4], [1, 2, 3]])
def test_an_interrupted_run_resumes_to_the_same_files(finished, tmp_path, tiny_spec, resources, epochs):
    for epoch in epochs:
        with pytest.raises(Interrupted):
            train(tiny_spec, tmp_path, resources, interrupt_at(epoch))
    summary = train(tiny_spec, tmp_path, resources)
    assert results(tmp_path) == results(finished[0])
    assert summary.attempts == len(epochs) + 1
    assert repeatable_summary(summary) == repeatable_summary(finished[1])
    # The last attempt at a run that was interrupted after its last epoch computes nothing of it.
    begins = [1] + [6 * epoch + 1 for epoch in epochs if epoch < 4]
    ends, nothing = [first - 1 for first in begins[1:]] + [24], [None] * (epochs == [4])
    assert [record["first_step"] for record in summary.attempt_records] == begins + nothing
    assert [record["last_step"] for record in summary.attempt_records] == ends + nothing
    assert not (tmp_path / "attempts.json").exists()


def test_an_attempt_that_was_killed_before_its_first_checkpoint_is_recorded(tmp_path, tiny_spec, resources):
    """Of another run in the same folder, or a damaged file, nothing is taken."""
    spec = changed(tiny_spec, training={"epochs": 1, "lr_drop_epochs": []})
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(spec, tmp_path, resources, [AtBatch(interrupt)])
    journal = (tmp_path / "attempts.json").read_bytes()
    assert journal.startswith(b'{\n  "fingerprint": "')
    assert journal.endswith(b"}\n")
    summary = train(spec, tmp_path, resources)
    assert [(row["attempt"], row["first_step"]) for row in summary.attempt_records] == [(1, None), (2, None), (3, 1)]
    assert summary.attempts == 3
    for row in summary.attempt_records:
        assert {"started", "commit", "changes", "code_digest", "versions", "device", "choice"} <= row.keys()
        assert re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\+00:00", row["started"])
        assert datetime.fromisoformat(row["started"]) <= datetime.fromisoformat(summary.attempt_records[-1]["ended"])
    assert attempts_begun(tmp_path, spec.fingerprint) == ()
    (tmp_path / "attempts.json").write_bytes(journal)
    assert len(attempts_begun(tmp_path, spec.fingerprint)) == 2
    assert attempts_begun(tmp_path, "another") == ()
    (tmp_path / "attempts.json").write_bytes(journal[:-9])
    assert attempts_begun(tmp_path, spec.fingerprint) == ()


@pytest.mark.parametrize("late", [False, True])
def test_code_that_changes_while_a_training_begins_is_refused(tmp_path, short_spec, resources, monkeypatch, late):
    """Before the imports have ended, or before the first step is done."""
    began = sources()
    name = next(name for name in began if name.endswith("sparse/masks.py"))
    if late:
        edited = began | {name: "other"}
        hook = AtBatch(lambda: monkeypatch.setattr(provenance, "sources", lambda *_: edited))
        with pytest.raises(EastError, match=name):
            train(short_spec, tmp_path, resources, [hook], began=began)
    else:
        with pytest.raises(EastError, match=name):
            train(short_spec, tmp_path, resources, began=began | {name: "other"})
    assert not list(tmp_path.glob("checkpoint*"))


def test_code_that_only_shows_numbers_may_change_while_a_training_begins():
    began = sources()
    refuse_changes(began | {name: "other" for name in began if name.startswith("render/")})


def test_what_computed_each_part_is_recorded_as_it_was_when_its_process_began(
    tmp_path, tiny_spec, resources, monkeypatch
):
    """Code that is edited or pulled while a training runs is not what trains; what trained the first part stays."""
    spec = changed(tiny_spec, training={"epochs": 2, "lr_drop_epochs": []})

    def edit(text):
        monkeypatch.setattr(provenance, "look_up", lambda: Checkout(f"commit {text}"))
        monkeypatch.setattr(provenance, "code_digest", lambda: f"digest {text}")

    edit("A")

    def edit_and_interrupt():
        edit("B")
        raise Interrupted

    with pytest.raises(Interrupted):
        train(spec, tmp_path, resources, [AtEpoch(edit_and_interrupt)])
    summary = train(spec, tmp_path, resources, [AtEpoch(lambda: edit("C"))])
    records = summary.attempt_records
    assert [(row["attempt"], row["commit"], row["code_digest"]) for row in records] == [
        (1, "commit A", "digest A"),
        (2, "commit B", "digest B"),
    ]
    assert (summary.commit, summary.code_digest) == ("commit B", "digest B")
    assert summary.reproducibility == "statistical"
    assert summary.dataset_digest == records[0]["dataset_digest"] is not None


def combined(spec):
    """EAST Combined with Adam, so that every part of the state exists: scales, DyReLU that fades, moments."""
    return changed(
        spec,
        model={"activation": "dyrelu", "sharing_ratio": 2, "dct": True},
        phasing={"start": 1.0, "end": 3.0, "freeze": False},
        training={"optimizer": {"name": "adam"}, "lr": 0.003, "epochs": 3},
    )


@pytest.mark.slow
def test_the_composition_of_all_resumes_to_the_same_files(tmp_path, tiny_spec, resources):
    spec = combined(tiny_spec)
    whole = train(spec, tmp_path / "whole", resources)
    for epoch in (1, 2):
        with pytest.raises(Interrupted):
            train(spec, tmp_path / "parts", resources, interrupt_at(epoch))
    train(spec, tmp_path / "parts", resources)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert whole.parameters["dyrelu"] == 0
    assert not any("act" in name for name in load_file(tmp_path / "whole" / "weights.safetensors"))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_same_files(finished, tmp_path, tiny_spec, data_dir, resources):
    """`make campaign` kills hundreds of them."""
    command = [sys.executable, "-m", "east", "train", "--run", tiny_spec.canonical_json(), "--out", str(tmp_path)]
    command += ["--data-dir", str(data_dir), "--device", "cpu", "--threads", "1"]
    for seconds in (0.0, 0.1):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        process.stderr.readline()  # the first epoch of this attempt is done
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    train(tiny_spec, tmp_path, resources)
    assert results(tmp_path) == results(finished[0])


def test_a_truncated_and_an_empty_checkpoint_are_set_aside(finished, tmp_path, tiny_spec, resources):
    with pytest.raises(Interrupted):
        train(tiny_spec, tmp_path, resources, interrupt_at(2))
    for name, size in (("checkpoint-000002.pt", 1000), ("checkpoint-000001.pt", 0)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
    train(tiny_spec, tmp_path, resources)
    assert results(tmp_path) == results(finished[0])


def test_a_checkpoint_of_another_configuration_is_not_resumed(finished, tmp_path, tiny_spec, resources, capsys):
    with pytest.raises(Interrupted):
        train(changed(tiny_spec, training={"lr": 0.2}), tmp_path, resources, interrupt_at(2))
    train(tiny_spec, tmp_path, resources)
    assert "another configuration" in capsys.readouterr().err
    assert results(tmp_path) == results(finished[0])


def test_a_finished_run_is_not_trained_again(finished, tiny_spec, resources):
    folder, summary = finished

    def fail():
        raise AssertionError("trained again")

    assert train(tiny_spec, folder, resources, [AtEpoch(fail)]) == summary


def test_a_second_trainer_waits_for_the_first_and_trains_nothing(finished, tmp_path, tiny_spec, data_dir):
    command = [sys.executable, "-m", "east", "train", "--run", tiny_spec.canonical_json(), "--out", str(tmp_path)]
    command += ["--data-dir", str(data_dir), "--device", "cpu", "--threads", "1"]
    with locked(tmp_path):
        second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert "another process trains" in second.stderr.readline()
        assert not (tmp_path / "run.json").exists()
        shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "epoch" not in errors


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_diverged_run_ends_as_such_with_its_rows_kept(tmp_path, tiny_spec, resources, interrupted):
    spec = changed(tiny_spec, training={"lr": 1e30, "gradient_clip": None})
    if interrupted:
        with pytest.raises(Interrupted):
            train(spec, tmp_path, resources, interrupt_at(1))
    summary = train(spec, tmp_path, resources)
    assert summary.status == "diverged"
    assert summary.final_test_accuracy is None
    assert summary.diverged_at_epoch == len(rows(tmp_path / "metrics.csv")) == 1
    assert summary.diverged_at_step == 6


@pytest.mark.parametrize("seen_in", ["logits", "network"])
def test_a_network_that_is_not_finite_after_the_last_step_has_diverged(
    tmp_path, tiny_spec, resources, monkeypatch, seen_in
):
    """The loss of a step is found before the step, so that of the last one says nothing of what it leaves behind.

    A ReLU may hide from the logits what is not finite, and statistics may be finite where logits are not.
    """
    if seen_in == "logits":
        monkeypatch.setattr(loop, "is_finite", lambda model: True)
    else:
        monkeypatch.setattr(loop, "evaluate", lambda *arguments: (10.0, True))
    spec = changed(
        tiny_spec,
        cycle=None,
        sparsity={"topology": "fixed"},
        training={"epochs": 1, "lr_drop_epochs": [], "batch_size": 2048, "lr": 1e45, "gradient_clip": None},
    )
    summary = train(spec, tmp_path, resources)
    (last,) = rows(tmp_path / "metrics.csv")
    assert math.isfinite(float(last["train_loss"]))
    assert (summary.status, summary.diverged_at_epoch, summary.diverged_at_step) == ("diverged", 1, 1)
    assert summary.final_test_accuracy is None
    assert math.isnan(float(last["test_acc"])) == (seen_in == "logits")


@pytest.mark.parametrize("name", ["conv1.weight", "classifier.weight", "bn1.running_var"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_is_finite_if_all_its_parameters_and_statistics_are(tiny_spec, name, value):
    model = initial_model(tiny_spec, 10)
    assert is_finite(model)
    model.state_dict()[name].view(-1)[-1] = value
    assert not is_finite(model)


def test_the_first_weights_depend_on_the_seed_and_not_on_the_global_random_state(tiny_spec):
    torch.manual_seed(1)
    first = initial_model(tiny_spec, 10).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = initial_model(tiny_spec, 10).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("engine", "dct"), [("dense", False), ("auto", True)])
def test_what_bf16_does_not_exist_for_on_a_cpu_is_refused(tiny_spec, resources, tmp_path, engine, dct):
    spec = changed(tiny_spec, training={"numerics": "bf16"}, model={"dct": dct})
    with pytest.raises(EastError, match=r"bf16 is what the sparse engine.*readings\.numerics"):
        train(spec, tmp_path / "run", replace(resources, engine=engine))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(EastError, match="device: cuda"):
        choose_device("cuda")
