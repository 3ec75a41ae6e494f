"""A run that is killed between any two file operations of its end, and resumed, leaves what one never killed does."""

import multiprocessing
import os
import shutil
from itertools import count
from pathlib import Path
from unittest import mock

import pytest
import torch

from east.training.folder import REPEATABLE, discard_temporaries, repeatable_summary
from east.training.records import SUMMARY, read_summary
from east.training.run import Resources, train
from tests.unit.test_training_loop import Interrupted, changed, interrupt_at, results

pytestmark = pytest.mark.usefixtures("one_thread")

OPERATIONS = (
    (os, "fsync"),  # when a file is written, and has not its name
    (Path, "replace"),
    (Path, "unlink"),
)
KILLED = 77


@pytest.fixture(scope="module")
def short(tiny_spec):
    return changed(tiny_spec, training={"epochs": 2, "lr_drop_epochs": [], "batch_size": 2048})


@pytest.fixture(scope="module")
def settings(data_dir):
    return Resources(device="cpu", engine="dense", threads=1, data_dir=data_dir)


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory, short, settings):
    """The folder of the run, and of the same before its last epoch."""
    folder = tmp_path_factory.mktemp("never") / "killed"
    with pytest.raises(Interrupted):
        train(short, folder, settings, interrupt_at(1))
    begun = shutil.copytree(folder, folder.with_name("begun"))
    train(short, folder, settings)
    return folder, begun


def counting(original, counter, last):
    def counted(*arguments, **keys):
        counter.append(original.__name__)
        if len(counter) > last:
            os._exit(KILLED)  # as SIGKILL would: nothing is tidied up
        return original(*arguments, **keys)

    return counted


def train_and_be_killed(operation, spec, folder, settings):
    """Train in this process, which is killed at a file operation (counted from 0)."""
    torch.set_num_threads(1)
    status, counter = 1, []
    try:
        for owner, name in OPERATIONS:
            mock.patch.object(owner, name, counting(getattr(owner, name), counter, operation)).start()
        train(spec, folder, settings)
        status = 0
    finally:
        os._exit(status)


def train_until(operation, spec, folder, settings):
    """Train in a process of its own that is killed at a file operation; whether it came to that."""
    # Not a fork of this one: PyTorch computes no gradient in a fork of a process that has used all of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=train_and_be_killed, args=(operation, spec, folder, settings))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED)
    return process.exitcode == KILLED


def summary(folder):
    return repeatable_summary(read_summary(folder / SUMMARY))


@pytest.mark.slow
def test_a_kill_at_any_file_operation_of_the_end_changes_nothing(never_killed, tmp_path, short, settings):
    """At every third one; `make campaign` kills at all."""
    expected, begun = never_killed
    for operation in count(0, 3):
        folder = shutil.copytree(begun, tmp_path / str(operation))
        if not train_until(operation, short, folder, settings):
            break
        train(short, folder, settings)
        assert results(folder) == results(expected), operation
        assert summary(folder) == summary(expected)
        assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}, operation
    # Two of each file: state (three times), run, checkpoint, records (twice), weights, both summaries; and removals.
    assert operation > 2 * (3 + 1 + 1 + 2 * 4 + 1 + 2)


@pytest.mark.parametrize("stale", REPEATABLE[1:])
def test_a_run_killed_after_its_last_checkpoint_writes_every_file_anew(never_killed, tmp_path, short, settings, stale):
    expected, begun = never_killed
    folder = shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(short, folder, settings, interrupt_at(2))
    (folder / stale).write_text("of the epoch before")
    train(short, folder, settings)
    assert results(folder) == results(expected)


def test_temporaries_of_a_killed_process_vanish_and_nothing_else_does(never_killed, tmp_path, short, settings):
    """Also where the run is finished and nothing is left to be trained."""
    folder = shutil.copytree(never_killed[0], tmp_path / "run")
    killed = [f".{name}.k3x_8abc" for name in (*REPEATABLE, SUMMARY, "state.json", "checkpoint-000001.pt")]
    others = [".mine.csv.k3x_8abc", ".metrics.csv.bak", ".metrics.csv", "metrics.csv.k3x_8abc", ".lock"]
    for name in killed + others:
        (folder / name).touch()
    train(short, folder, settings)
    left = {path.name for path in folder.iterdir()}
    assert not left & set(killed)
    assert left >= set(others)
    discard_temporaries(folder)
