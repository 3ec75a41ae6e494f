"""Trainings stopped by signals, in the middle of an epoch as well, and resumed to the last bit."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from east.data.batches import EvaluationBatches
from east.errors import EastError
from east.training.folder import locked
from east.training.interrupt import _END, SIGNALS, Interruption, Stopped, _end_at_second_signal
from east.training.run import Resources, train
from east.training.state import STATE, RunState
from tests.conftest import ROOT
from tests.unit.test_training_loop import AtEpoch, changed, combined, results, rows

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
"""Steps of an epoch of the tiny run: 1,438 - 144 images in batches of 256. Its masks change at every second one."""


class StopAt(Interruption):
    """Asks for a stop after a step of the training, counted from 1, or after an epoch; 0 stands for the beginning."""

    def __init__(self, step=None, epoch=None):
        super().__init__()
        self.step, self.epoch = step, epoch

    def before_epoch(self, training):
        if self.step == 0:
            self.request(signal.SIGTERM)

    def after_step(self, training, update):
        if training.steps_done == self.step:
            self.request(signal.SIGTERM)

    def after_epoch(self, training, record):
        if training.epoch == self.epoch:
            self.request(signal.SIGTERM)


def resources(data_dir, engine):
    return Resources(device="cpu", engine=engine, threads=1, data_dir=data_dir)


def read_state(folder):
    return RunState.model_validate_json((folder / STATE).read_bytes())


def stop(spec, folder, settings, interruption):
    with pytest.raises(Stopped) as stopped:
        train(spec, folder, settings, hooks=[interruption])
    assert stopped.value.code == 128 + signal.SIGTERM
    return read_state(folder)


@pytest.mark.parametrize("engine", ["dense", "sparse"])
def test_a_run_stopped_within_an_epoch_resumes_to_the_same_files(whole, tmp_path, short_spec, data_dir, engine):
    """In the middle, after the last step, after an update of the masks, and again in the same epoch."""
    settings = resources(data_dir, engine)
    steps = (3, STEPS, 8, 9)
    for step in steps:
        state = stop(short_spec, tmp_path, settings, StopAt(step))
        assert (state.state, state.step, state.epoch) == ("stopped", step, (step - 1) // STEPS)
        assert (tmp_path / f"checkpoint-{state.epoch + 1:06d}-{step - state.epoch * STEPS:06d}.pt").exists()
    summary = train(short_spec, tmp_path, settings)
    assert (summary.engine, summary.attempts) == (engine, len(steps) + 1)
    assert results(tmp_path) == results(whole / engine)
    assert read_state(tmp_path).state == "ended"
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize("place", [{"step": 0}, {"epoch": 1}], ids=["before the first step", "between two epochs"])
def test_a_run_stopped_outside_of_an_epoch_resumes_to_the_same_files(whole, tmp_path, short_spec, data_dir, place):
    settings = resources(data_dir, "sparse")
    stop(short_spec, tmp_path, settings, StopAt(**place))
    train(short_spec, tmp_path, settings)
    assert results(tmp_path) == results(whole / "sparse")


@pytest.mark.parametrize("engine", ["dense", "sparse"])
def test_a_stop_in_the_evaluation_keeps_the_epoch(whole, tmp_path, short_spec, data_dir, engine, monkeypatch):
    interruption = Interruption()

    def epoch(self, number=0, start=0):
        for batch in plain(self, number, start):
            interruption.request(signal.SIGTERM)
            yield batch

    settings = resources(data_dir, engine)
    plain = EvaluationBatches.epoch
    with monkeypatch.context() as patched:
        patched.setattr(EvaluationBatches, "epoch", epoch)
        state = stop(short_spec, tmp_path, settings, interruption)
    assert (state.epoch, state.step) == (0, STEPS)
    train(short_spec, tmp_path, settings)
    assert results(tmp_path) == results(whole / engine)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "freeze"), [("dense", True), ("sparse", False)])
def test_a_run_stopped_while_dyrelu_fades_resumes_to_the_same_files(tmp_path, tiny_spec, data_dir, engine, freeze):
    """In the middle, at the last fading step and at the first faded one."""
    spec = changed(
        combined(tiny_spec),
        model={"dct": engine == "dense"},  # the sparse one does not execute DCT layers
        phasing={"freeze": freeze},
        training={"gradient_clip": {"norm": 1.0, "scope": "dense", "every": 4}},
    )
    settings = resources(data_dir, engine)
    train(spec, tmp_path / "whole", settings)
    for step in (STEPS + 3, 2 * STEPS, 2 * STEPS + 1):
        stop(spec, tmp_path / "parts", settings, StopAt(step))
    train(spec, tmp_path / "parts", settings)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert [row["beta"] for row in rows(tmp_path / "parts" / "metrics.csv")] == ["1.0", "0.5", "0.0"]


def test_both_parts_of_a_split_epoch_are_timed(tmp_path, short_spec, data_dir):
    settings = resources(data_dir, "dense")
    stop(short_spec, tmp_path, settings, StopAt(STEPS + 4))
    summary = train(short_spec, tmp_path, settings)
    timing = rows(tmp_path / "timing.csv")
    assert [(row["epoch"], row["attempt"]) for row in timing] == [("1", "1"), ("2", "1"), ("2", "2"), ("3", "2")]
    assert all(float(row["seconds"]) > 0 for row in timing)
    assert summary.seconds == pytest.approx(sum(float(row["seconds"]) for row in timing), abs=0.01)


def test_a_damaged_checkpoint_within_an_epoch_gives_way_to_that_of_the_epoch_before(
    whole, tmp_path, short_spec, data_dir, capsys
):
    settings = resources(data_dir, "dense")
    stop(short_spec, tmp_path, settings, StopAt(STEPS + 2))
    newest = tmp_path / "checkpoint-000002-000002.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    train(short_spec, tmp_path, settings)
    assert "checkpoint-000002-000002.pt is damaged" in capsys.readouterr().err
    assert newest.with_suffix(".damaged").exists()
    assert results(tmp_path) == results(whole / "dense")


def test_the_state_follows_the_run_and_names_its_place(whole, short_spec):
    state = read_state(whole / "dense")
    last = rows(whole / "dense" / "metrics.csv")[-1]
    assert (state.state, state.epoch, state.epochs, state.step) == ("ended", 3, 3, 3 * STEPS)
    assert (state.attempt, state.threads, state.pid) == (1, 1, os.getpid())
    assert state.test_accuracy == float(last["test_acc"])
    assert state.seconds_per_epoch == float(rows(whole / "dense" / "timing.csv")[-1]["seconds"])


def test_a_failed_run_says_why(tmp_path, short_spec, data_dir):
    def fail():
        raise ValueError("no\nspace")

    with pytest.raises(ValueError, match="space"):
        train(short_spec, tmp_path, resources(data_dir, "dense"), [AtEpoch(fail)])
    state = read_state(tmp_path)
    assert (state.state, state.message, state.epoch) == ("failed", "ValueError: no space", 1)


def test_a_run_that_cannot_begin_says_why(tmp_path, short_spec):
    with pytest.raises(EastError):
        train(short_spec, tmp_path, Resources(device="cpu", data_dir=tmp_path / "nowhere"))
    state = read_state(tmp_path)
    assert state.state == "failed"
    assert state.message.startswith("Digits is not prepared")


# Signals


@pytest.fixture
def listening():
    interruption = Interruption()
    with interruption.listening():
        yield interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_or_in_the_loop_before_the_next_batch(listening, number, capsys):
    done = []

    listening.on_begin(None)
    listening.before_batch(None)
    os.kill(os.getpid(), number)
    done.append("step")
    with pytest.raises(Stopped) as stopped:
        listening.before_batch(None)
    assert stopped.value.code == 128 + number

    def be_stopped():
        with Interruption().listening():
            os.kill(os.getpid(), number)
            done.append("too much")

    with pytest.raises(Stopped):
        be_stopped()
    assert done == ["step"]
    assert f"stopped by {number.name}; the same command goes on from here." in capsys.readouterr().err


def test_handlers_are_those_of_before_when_nothing_listens_any_more():
    def what_there_is():
        woken = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(woken)
        return [signal.getsignal(number) for number in SIGNALS], woken, threading.active_count(), sorted(open_files())

    def open_files():
        return [path.name for path in Path("/dev/fd").iterdir() if path.exists()]

    before = what_there_is()
    with Interruption().listening():
        assert all(signal.getsignal(number) not in before[0] for number in SIGNALS)
        assert threading.active_count() == before[2] + 1
    assert what_there_is() == before


@pytest.mark.parametrize(
    ("received", "echo_seconds", "ends"),
    [
        ([signal.SIGTERM], -1, []),
        ([signal.SIGTERM, signal.SIGINT], -1, [128 + signal.SIGINT]),
        ([signal.SIGTERM, signal.SIGINT], 60, []),
        ([signal.SIGWINCH, signal.SIGTERM], -1, []),
        ([signal.SIGXCPU, signal.SIGXCPU], -1, []),
        ([signal.SIGXCPU, signal.SIGTERM], -1, [128 + signal.SIGTERM]),
    ],
    ids=["one", "two", "an echo", "another's", "of processor time", "of processor time and one"],
)
def test_the_second_signal_to_stop_ends_the_process(monkeypatch, received, echo_seconds, ends):
    ended = []
    monkeypatch.setattr("east.training.interrupt.ECHO_SECONDS", echo_seconds)
    monkeypatch.setattr(os, "_exit", ended.append)
    reader, writer = os.pipe()
    os.write(writer, bytes([*received, _END]))
    _end_at_second_signal(reader)
    os.close(reader)
    os.close(writer)
    assert ended == ends


BUSY = """
import hashlib, sys
from east.log import configure_logging
from east.training import interrupt
configure_logging()
interrupt.ECHO_SECONDS = float(sys.argv[1] or interrupt.ECHO_SECONDS)
interruption = interrupt.Interruption()
with interruption.listening():
    interruption.on_begin(None)
    print("busy", flush=True)
    # One instruction for Python, minutes for the processor: no handler can run.
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[2]))
    interruption.before_batch(None)
"""


@contextmanager
def busy(echo_seconds="", rounds=10**9):
    """A process that is in the middle of a long computation."""
    command = [sys.executable, "-c", BUSY, str(echo_seconds), str(rounds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "busy\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("first", "second"), [(signal.SIGHUP, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)])
def test_a_second_signal_exits_at_once_unless_it_comes_with_the_first(first, second):
    with busy(echo_seconds=0.5) as process:
        process.send_signal(first)
        process.send_signal(second)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(second)
        assert process.wait(timeout=5) == 128 + second


def test_the_warning_of_processor_time_may_come_every_second():
    with busy(echo_seconds=0) as process:
        process.send_signal(signal.SIGXCPU)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGXCPU)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)


NOHUP = """
import os, signal
from east.training.interrupt import Interruption
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Interruption().listening():
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on")
"""


def test_nohup_stays_in_force():
    done = subprocess.run([sys.executable, "-c", NOHUP], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("goes on\n", 0)


COMPILING = """
from east.engine.cpu.commands import run_all
from east.training.interrupt import Interruption
with Interruption().listening():
    print("begins", flush=True)
    run_all([["sh", "-c", "echo $$ >> compilers; sleep 60"]] * 2)
"""


def test_a_signal_while_kernels_are_compiled_ends_the_compilers_too(tmp_path):
    started = tmp_path / "compilers"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", COMPILING], stdout=-1, cwd=tmp_path, env=environment) as process:
        process.stdout.readline()
        while not started.exists() or started.read_text().count("\n") < 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
    for number in map(int, started.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_an_echo_of_a_signal_changes_nothing():
    with busy(echo_seconds=60, rounds=10**6) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # until it has been received: two that wait are one
        process.send_signal(signal.SIGTERM)
        assert "stopped by SIGTERM" in process.communicate(timeout=60)[1]
        assert process.returncode == 143


FORKING = """
import os, signal
from east.training.interrupt import Interruption
reader, writer = os.pipe()
with Interruption().listening():
    child = os.fork()
    if not child:
        os.read(reader, 1)
        os._exit(7)
    os.kill(child, signal.SIGTERM)
    os.write(writer, b"!")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_which_loads_data_leaves_signals_to_its_parent():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("7\n", 0)


@pytest.fixture
def command(tmp_path, data_dir):
    """`east train` of a run that takes some seconds, into a folder."""

    def make(spec, folder):
        (tmp_path / "spec.json").write_text(spec.canonical_json())
        line = [sys.executable, "-m", "east", "train", "--run", str(tmp_path / "spec.json"), "--out", str(folder)]
        return [*line, "--data-dir", str(data_dir), "--threads", "1"]

    return make


def start(command, **environment):
    environment = {key: value for key, value in os.environ.items() if key != "EAST_GPUS"} | environment
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_process_stopped_by_signals_in_turn_resumes_to_the_same_files(tmp_path, tiny_spec, data_dir, command):
    some, engine = SIGNALS[::2], "sparse"
    epochs = len(some) + 1
    spec = changed(tiny_spec, training={"batch_size": 64, "epochs": epochs})
    train(spec, tmp_path / "whole", resources(data_dir, engine))
    for attempt, number in enumerate(some, start=1):
        process = start([*command(spec, tmp_path / "parts"), "--engine", engine])
        assert process.stderr.readline().startswith(f"epoch {attempt}/{epochs}")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert errors.splitlines()[-1] == f"stopped by {number.name}; the same command goes on from here."
        assert "Traceback" not in errors
        state = read_state(tmp_path / "parts")
        assert (state.state, state.epoch, state.attempt) == ("stopped", attempt, attempt)
    train(spec, tmp_path / "parts", resources(data_dir, engine))
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


@pytest.mark.slow
def test_a_process_ended_by_a_second_signal_damages_nothing(tmp_path, whole, short_spec, data_dir, command):
    process = start([*command(short_spec, tmp_path / "run"), "--engine", "dense"])
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143, 0)
    train(short_spec, tmp_path / "run", resources(data_dir, "dense"))
    assert results(tmp_path / "run") == results(whole / "dense")


def test_a_process_that_waits_for_another_trainer_stops_at_once(tmp_path, short_spec, command):
    with locked(tmp_path / "run"):
        process = start(command(short_spec, tmp_path / "run"))
        assert "another process trains" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_process_that_still_imports_stops_at_once(tmp_path, short_spec, command):
    process = start(command(short_spec, tmp_path / "run"), EAST_GPUS="0", TMPDIR=str(tmp_path))
    assert process.stderr.readline() == "leased GPU 0 of 0\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_whose_folder_is_removed_says_so_and_leaves_nothing_half(tmp_path, whole, short_spec, data_dir):
    folder, settings = tmp_path / "run", resources(data_dir, "dense")
    with pytest.raises(EastError, match="was removed"):
        train(short_spec, folder, settings, [AtEpoch(lambda: shutil.rmtree(folder))])
    assert {path.name for path in folder.iterdir()} == {STATE}
    assert read_state(folder).state == "failed"
    train(short_spec, folder, settings)
    assert results(folder) == results(whole / "dense")
