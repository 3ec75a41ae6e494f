import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from east.config import make_plan, read_config
from east.errors import EastError
from east.operations import log_tail
from east.operations.run_files import RunFiles, RunStatus
from east.operations.status import Eta, StatusReader, seconds_by_kind, status_json, time_left, with_eta
from east.training.folder import locked
from east.training.state import RunState
from tests.conftest import ROOT
from tests.unit.fake_runs import DIVERGED, seal, write_run

RUN = "table2/static/seed1"
OTHER = "table3/triangular-m3-n1/seed2"
EPOCHS = 2
NOW = datetime.now(UTC)
STATE = RunState(
    state="running",
    attempt=1,
    epoch=1,
    epochs=EPOCHS,
    step=6,
    test_accuracy=61.5,
    seconds_per_epoch=30.0,
    started=NOW,
    updated=NOW,
    host="node17",
    pid=4711,
    job="99_3",
    device="a GPU",
    threads=2,
)


@pytest.fixture(scope="module")
def plan():
    return make_plan(read_config(ROOT / "config" / "test.yaml"))


class Results:
    """The results folder of the plan, to be filled with runs."""

    def __init__(self, plan, folder):
        self.plan, self.folder = plan, folder
        self.runs, self.logs = folder / "runs", folder / "logs" / "train"
        self.reader = StatusReader(plan, folder)

    def end(self, run, outcome, **keys):
        return write_run(self.runs, run, outcome, fingerprint=self.plan.run(run).fingerprint, epochs=EPOCHS, **keys)

    def state(self, run, **changes):
        state = STATE.model_copy(update={"updated": datetime.now(UTC), **changes})
        path = self.runs / run / "state.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(state.model_dump_json())
        return path

    def log(self, run, content):
        path = self.logs / f"{run}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def look(self, run=RUN):
        return next(status for status in self.reader.read().runs if status.id == run)


@pytest.fixture
def results(plan, tmp_path):
    return Results(plan, tmp_path / "results" / "test")


def test_a_run_that_two_tables_show_counts_in_both_but_once_in_total(results):
    results.end(RUN, 90.0)
    status = results.reader.read()
    assert {table: tally.counts["done"] for table, tally in status.tables.items()} == {
        "table2": 1,
        "table3": 0,
        "tablemethods": 1,
    }
    assert status.total.counts["done"] == 1


def test_only_the_tables_that_are_asked_for_are_read(results, plan):
    status = StatusReader(plan, results.folder, ["table3"]).read()
    assert [run.id for run in status.runs] == ["table3/triangular-m3-n1/seed1", OTHER]
    assert list(status.tables) == ["table3"]
    with pytest.raises(EastError, match="--table: there is no 'table9' in this plan; it has table2, table3"):
        StatusReader(plan, results.folder, ["table9"])


def test_a_run_that_has_ended_says_what_its_summary_says(results):
    keys = {"device": "a\tCPU", "runs_per_device": 3, "attempts": 4}
    results.end(RUN, 90.0, **keys)
    said = {"attempt": 4, "seconds": 60.0, "device": "a CPU", "runs_per_device": 3, "reproducibility": "any processor"}
    assert results.look() == RunStatus(RUN, "done", EPOCHS, epoch=2, test_accuracy=90.0, **said)
    results.end(RUN, DIVERGED, **keys)
    assert results.look() == RunStatus(RUN, "diverged", EPOCHS, epoch=7, **said)


def test_a_run_that_goes_on_or_has_failed_says_what_its_state_and_logs_say(results, plan):
    moment = NOW.replace(microsecond=0)
    results.state(RUN, updated=moment, gpu="3", runs_per_device=2, attempt=5)
    log = results.log(RUN, "epoch 1/2\n")
    files, fingerprint = RunFiles(results.folder), plan.run(RUN).fingerprint
    said = {"epoch": 1, "test_accuracy": 61.5, "seconds_per_epoch": 30.0, "attempt": 5, "host": "node17", "pid": 4711}
    said |= {"job": "99_3", "device": "a GPU", "gpu": "3", "runs_per_device": 2, "updated": moment}

    def after(seconds):
        return files.status(RUN, fingerprint, EPOCHS, moment + timedelta(seconds=seconds))

    assert after(600) == RunStatus(RUN, "running", EPOCHS, **said)
    message = "nothing heard from node17 for 10 min; its log ends: epoch 1/2"
    assert after(601) == RunStatus(RUN, "lost", EPOCHS, **said, message=message, log=str(log))
    slurm_log = results.folder.parent / "slurm/rule_train/table2_static_1/99_3.log"
    slurm_log.parent.mkdir(parents=True)
    slurm_log.write_text("bye\n")
    logs = {"log": str(log), "slurm_log": str(slurm_log)}
    assert after(601) == RunStatus(RUN, "lost", EPOCHS, **said, message=message, **logs)
    results.state(RUN, updated=moment, gpu="3", runs_per_device=2, attempt=5, state="failed", message="no\nspace")
    assert after(0) == RunStatus(RUN, "failed", EPOCHS, **said, message="no space", **logs)


def test_a_run_of_which_only_the_kept_copy_is_left_is_done(results):
    path = results.end(RUN, 90.0)
    path.rename(path.with_name("summary.kept.json"))
    assert results.look().state == "done"
    write_run(results.runs, OTHER, 90.0).rename(results.runs / OTHER / "summary.kept.json")
    assert results.look(OTHER).state == "waiting"


def test_a_summary_of_other_settings_is_stale(results):
    write_run(results.runs, RUN, 90.0)
    found = results.look()
    assert (found.state, found.message) == ("stale", "its summary.json is of other settings than the plan's")


@pytest.mark.parametrize("content", [b"", b'{"fingerprint": "', b"[1]", b"\xff\xfe", b"null"])
def test_a_summary_that_is_half_there_is_named(results, content):
    results.end(RUN, 90.0).write_bytes(content)
    found = results.look()
    assert (found.state, found.message) == ("stale", "its summary.json is not whole")


@pytest.mark.parametrize("content", [b"", b'{"state": "running"', b"{}", b"[]", b"\xff"])
def test_a_state_that_is_half_there_counts_as_absent(results, content):
    results.state(RUN).write_bytes(content)
    assert results.look().state == "waiting"


@pytest.mark.parametrize("name", ["summary.json", "summary.kept.json", "state.json", "run.json", ".lock"])
def test_a_file_that_cannot_be_read_does_not_make_it_fail(results, name):
    results.state(RUN)
    path = results.runs / RUN / name
    path.unlink(missing_ok=True)
    path.mkdir()
    assert results.look().state in ("running", "waiting", "stale")


def test_files_in_place_of_folders_do_not_make_it_fail(results):
    for parent in (results.runs, results.logs):
        parent.mkdir(parents=True)
        (parent / "table2").write_text("")
        (parent / "table3").symlink_to("nowhere")
    assert results.reader.read().total.counts["waiting"] == 6


def test_a_run_on_another_machine_runs_as_long_as_it_is_heard_of(results):
    results.state(RUN)
    found = results.look()
    assert (found.state, found.epoch, found.host, found.job) == ("running", 1, "node17", "99_3")
    assert found.eta_seconds == pytest.approx(30, abs=5)


@pytest.mark.parametrize(
    ("pace", "minutes", "state"),
    [
        (30.0, 9, "running"),
        (30.0, 11, "lost"),
        (300.0, 24, "running"),
        (300.0, 26, "lost"),
        (None, 59, "running"),
        (None, 61, "lost"),
    ],
)
def test_how_long_another_machine_may_be_silent_depends_on_the_epochs(results, pace, minutes, state):
    results.state(RUN, seconds_per_epoch=pace, updated=datetime.now(UTC) - timedelta(minutes=minutes))
    found = results.look()
    assert found.state == state
    if state == "lost":
        assert found.message == f"nothing heard from node17 for {minutes} min"


TRAINER = """
import sys
from pathlib import Path
from east.training.folder import locked
from east.training.state import StateFile
folder = Path(sys.argv[1])
with locked(folder):
    StateFile(folder, epochs=2, device="cpu", threads=1).write()
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_holds_the_lock_runs_and_is_lost_once_it_is_killed(results):
    command = [sys.executable, "-c", TRAINER, str(results.runs / RUN)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout.readline() == b"begun\n"
        alive = results.look()
        trainer.kill()
    results.log(RUN, "epoch 1/2\n")
    killed = results.look()
    assert (alive.state, alive.pid) == ("running", trainer.pid)
    assert killed.state == "lost"
    assert killed.message == f"process {trainer.pid} is gone from {socket.gethostname()}; its log ends: epoch 1/2"
    assert killed.log == str(results.logs / f"{RUN}.log")


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(results):
    results.state(RUN, host=socket.gethostname(), pid=os.getpid())
    (results.runs / RUN / ".lock").touch()
    assert results.look().state == "lost"


def test_a_process_of_another_user_is_one_that_is_there(results, monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    results.state(RUN, host=socket.gethostname(), pid=1)
    monkeypatch.setattr(os, "kill", refuse)
    with locked(results.runs / RUN):
        assert results.look().state == "running"


@pytest.mark.parametrize("pid", [0, -1, 2**70])
def test_a_process_that_is_gone_is_known_even_where_no_lock_can_be_asked(results, pid):
    results.state(RUN, host=socket.gethostname(), pid=pid, job="x" * 1000)
    (results.runs / RUN / ".lock").mkdir()
    assert results.look().state == "lost"


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(results):
    results.log(RUN, "error: of an older attempt\n")
    results.state(RUN, state="stopped", updated=datetime.now(UTC) + timedelta(seconds=1))
    found = results.look()
    assert (found.state, found.epoch, found.message) == ("stopped", 1, None)


def test_a_log_says_something_of_a_stopped_run_only_if_it_is_newer(results):
    moment = NOW.replace(microsecond=0)
    results.state(RUN, state="stopped", updated=moment)
    assert results.look().state == "stopped", "there is no log"
    log = results.log(RUN, "error: no data.\n")
    for seconds, state in ((0, "stopped"), (1, "failed")):
        os.utime(log, (moment.timestamp() + seconds,) * 2)
        assert results.look().state == state


def test_an_attempt_that_failed_before_its_first_state_shows_in_the_log_alone(results):
    results.log(RUN, "warning: slow\nerror: no data.\n")
    results.state(OTHER, state="stopped", updated=NOW - timedelta(hours=1))
    results.log(OTHER, "Traceback\n  File x\ntorch.cuda.OutOfMemoryError: CUDA out of memory.\n\n")
    first, later = results.look(), results.look(OTHER)
    assert (first.state, first.message) == ("failed", "error: no data.")
    assert first.log == str(results.logs / f"{RUN}.log")
    assert (later.state, later.message) == ("failed", "torch.cuda.OutOfMemoryError: CUDA out of memory.")


def test_a_run_that_failed_shows_its_message_or_else_the_end_of_its_log(results):
    results.state(RUN, state="failed", message="no space left")
    results.state(OTHER, state="failed")
    results.log(OTHER, "epoch 1/2\nRuntimeError: boom\n")
    assert results.look().message == "no space left"
    assert results.look(OTHER).message == "RuntimeError: boom"


def test_what_slurm_says_about_a_job_that_it_ended_is_found(results):
    results.state(RUN, updated=NOW - timedelta(hours=1))
    log = results.folder.parent / "slurm" / "rule_train" / "table2_static_1" / "99_3.log"
    log.parent.mkdir(parents=True)
    log.write_text(
        "Execute 1 jobs...\nslurmstepd: error: *** STEP 99.0 ON node17 CANCELLED DUE TO TIME LIMIT ***\nbye\n"
    )
    found = results.look()
    assert (found.state, found.slurm_log) == ("lost", str(log))
    assert found.message.endswith(
        "log ends: slurmstepd: error: *** STEP 99.0 ON node17 CANCELLED DUE TO TIME LIMIT ***"
    )


def test_an_attempt_at_other_settings_says_nothing_about_the_planned_run(results, plan):
    path = results.state(RUN, state="stopped")
    path.with_name("run.json").write_text(json.dumps(plan.run(OTHER).spec.model_dump(mode="json"), indent=2))
    assert results.look().state == "waiting"
    results.state(RUN)
    found = results.look()
    assert found.state == "stale"
    assert found.message == "process 4711 on node17 still trains it with other settings than the plan's"
    path.with_name("run.json").write_text(json.dumps(plan.run(RUN).spec.model_dump(mode="json"), indent=2))
    assert results.look().state == "running"


def test_logs_are_read_from_their_end_and_stripped_of_all_that_is_no_text(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(
        b"x" * 10_000_000
        + b"\n\x1b]0;title\x07\x1b[31mRuntimeError: [red]a\x00b\xe2\x80\xaec\xff[/red]\x1b[0m\r\n ^^^^ \n\x1b[2J\n"
    )
    lines = log_tail.tail(log)
    assert lines[-1] == "RuntimeError: [red]a[U+0000]b[U+202E]c\ufffd[/red]"
    assert log_tail.last_error(lines) == lines[-1]
    assert all(len(line) <= log_tail.LINE_LENGTH for line in lines)


def test_no_more_than_the_last_8_kilobytes_of_a_log_are_read(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"{number:09}\n" for number in range(1000)))
    lines = log_tail.tail(log)
    assert (lines[0], lines[1], len(lines)) == ("0", "000000181", 820)


@pytest.mark.parametrize(("length", "shown"), [(300, "x" * 300), (301, "x" * 299 + "…")])
def test_a_long_line_is_cut_at_300_characters(length, shown):
    assert log_tail.printable("x" * length) == shown


def test_the_error_is_found_before_what_programs_say_at_their_end(tmp_path):
    log = tmp_path / "log"
    log.write_text("epoch 1/2\rValueError: nan\nwarning: leaked semaphore objects\n")
    lines = log_tail.tail(log)
    assert lines == ["epoch 1/2", "ValueError: nan", "warning: leaked semaphore objects"]
    assert log_tail.last_error(lines) == "ValueError: nan"
    assert log_tail.last_error(["no error here", "Errors: none"]) is None


def test_texts_of_a_state_are_made_fit_to_be_shown(results):
    texts = {"host": "n\x1b[2J1", "device": "a\nb", "message": "x\u202ey", "gpu": "0\t1", "job": "9\r9"}
    results.state(RUN, state="failed", **texts)
    found = results.look()
    assert (found.host, found.device, found.message) == ("n1", "a b", "x[U+202E]y")
    assert (found.gpu, found.job) == ("0 1", "9 9")


def test_a_file_is_read_again_only_after_it_has_changed(results):
    path = results.end(RUN, 90.0)
    assert results.look().test_accuracy == 90.0
    before = path.stat()
    seal(path, final_test_accuracy=91.0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert results.look().test_accuracy == 90.0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert results.look().test_accuracy == 91.0
    path.unlink()
    assert results.look().state == "waiting"


def running(run, eta):
    return RunStatus(run, "running", 10, epoch=5, eta_seconds=eta)


WAITING, FAILED = RunStatus("w", "waiting", 10), RunStatus("f", "failed", 10, epoch=1)


def test_a_run_takes_as_long_as_those_of_its_kind_that_are_done_or_else_as_those_that_run():
    done = [RunStatus("a", "done", 10, seconds=40.0), RunStatus("b", "done", 10, seconds=60.0)]
    runs = [RunStatus("c", "running", 10, seconds_per_epoch=9.0), RunStatus("d", "running", 10, seconds_per_epoch=7.0)]
    # What has diverged has not trained all of it, and what is lost does not run.
    others = [RunStatus("e", "diverged", 10, seconds=1.0), RunStatus("f", "lost", 10, seconds_per_epoch=1.0)]
    kinds = {"a": "known", "b": "known", "c": "known", "d": "new", "e": "known", "f": "new"}
    assert seconds_by_kind([*runs, *done, *others], kinds) == {"known": 50.0, "new": 70.0}


@pytest.mark.parametrize(
    ("runs", "seconds", "expected"),
    [
        # The first waits from 10 to 50, the second from 30 to 70, the third from 50 to 90.
        ([running("a", 10.0), running("b", 30.0), WAITING, WAITING, WAITING], 40.0, Eta(90.0, complete=True)),
        # The place that is free first is not the first of them.
        ([running("a", 30.0), running("b", 10.0), WAITING], 40.0, Eta(50.0, complete=True)),
        # A stopped run needs the rest, and a failed one a person.
        ([running("a", 10.0), RunStatus("b", "stopped", 10, epoch=8), FAILED], 100.0, Eta(30.0, complete=True)),
        # Of the kind that waits nothing is known.
        ([running("a", 10.0), WAITING], None, Eta(10.0, complete=False)),
        ([running("a", 0.5), WAITING], None, Eta(0.5, complete=False)),
        ([running("a", 0.0)], None, Eta(0.0, complete=True)),
        ([running("a", None)], None, Eta(None, complete=False)),
        ([WAITING], 5.0, Eta(None, complete=True)),
    ],
)
def test_the_time_left_is_that_of_runs_one_after_the_other(runs, seconds, expected):
    found = time_left(runs, {} if seconds is None else {"kind": seconds}, dict.fromkeys(("a", "b", "w", "f"), "kind"))
    assert found == Eta(pytest.approx(expected.seconds), complete=expected.complete)


def test_a_run_in_its_first_epoch_goes_by_the_pace_of_its_kind():
    run = RunStatus(RUN, "running", 10, epoch=0, updated=NOW)
    assert with_eta(run, 50.0, NOW + timedelta(seconds=2)).eta_seconds == pytest.approx(48.0)
    # A clock that is behind, and one epoch that takes far longer than it should.
    assert with_eta(run, 50.0, NOW - timedelta(hours=1)).eta_seconds == pytest.approx(50.0)
    assert with_eta(run, 50.0, NOW + timedelta(hours=1)).eta_seconds == pytest.approx(45.0)
    assert with_eta(run, None, NOW).eta_seconds is None


def test_a_run_goes_by_its_own_pace_after_its_first_epoch():
    run = RunStatus(RUN, "running", 10, epoch=4, seconds_per_epoch=7.0, updated=NOW)
    assert with_eta(run, 50.0, NOW + timedelta(seconds=2)).eta_seconds == pytest.approx(40.0)
    assert with_eta(replace(run, epoch=10), 50.0, NOW + timedelta(seconds=2)).eta_seconds == 0.0
    for other in (replace(run, state="lost"), replace(run, epoch=None), replace(run, updated=None)):
        assert with_eta(other, 50.0, NOW) == other


def test_json_is_all_that_is_known_of_the_plan(results):
    results.end(RUN, 90.0)
    results.end("table2/static/seed2", DIVERGED)
    results.state(OTHER)
    status = results.reader.read()
    found = status_json(status)
    assert (found["schema"], found["name"], found["time"]) == (1, "test", status.time.isoformat())
    assert status.time.utcoffset() == timedelta(0)
    counts = dict.fromkeys(("done", "running", "stopped", "failed", "lost", "diverged", "stale", "waiting"), 0)
    other = next(run for run in status.runs if run.id == OTHER)
    # A run that is done took 60 s, so the three that wait take 180 s after the one that runs.
    eta = pytest.approx(other.eta_seconds + 3 * 60.0)
    assert found["total"] == {
        "runs": 6,
        **counts,
        **{"done": 1, "running": 1, "diverged": 1, "waiting": 3},
        "eta_seconds": eta,
        "eta_complete": True,
    }
    assert [table["id"] for table in found["tables"]] == ["table2", "table3", "tablemethods"]
    assert found["tables"][0] == {
        "id": "table2",
        "runs": 4,
        **counts,
        **{"done": 1, "diverged": 1, "waiting": 2},
        "eta_seconds": None,
        "eta_complete": True,
    }
    assert {run["id"]: run for run in found["runs"]}[OTHER] == asdict(other) | {"updated": other.updated.isoformat()}
    assert found["runs"][0]["updated"] is None
    table2, table3 = status.tables["table2"], status.tables["table3"]
    assert ((table2.ended, table2.finished), (table3.ended, table3.finished)) == ((2, False), (0, False))
    assert replace(table2, runs=2).finished


def test_json_holds_no_number_that_json_lacks(results):
    path = results.state(RUN, epochs=0)
    path.write_text(path.read_text().replace("61.5", "NaN").replace("30.0", "1e999"))
    text = json.dumps(status_json(results.reader.read()), allow_nan=False)
    runs = {run["id"]: run for run in json.loads(text)["runs"]}
    assert (runs[RUN]["state"], runs[RUN]["test_accuracy"], runs[RUN]["seconds_per_epoch"]) == ("running", None, None)


@pytest.mark.parametrize("done", [0, 1002])
def test_a_look_at_a_thousand_runs_is_quick(tmp_path, done):
    config = read_config(ROOT / "config" / "test.yaml")
    plan = make_plan(config.model_copy(update={"seeds": tuple(range(334))}))
    for run in plan.runs[:done]:
        write_run(tmp_path / "runs", run.id, 90.0, fingerprint=run.fingerprint)
    reader = StatusReader(plan, tmp_path)
    started = time.perf_counter()
    assert reader.read().total.counts["done"] == done
    assert time.perf_counter() - started < 5
