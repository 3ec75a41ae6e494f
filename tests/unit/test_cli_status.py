import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from east.training.folder import locked
from east.training.state import StateFile
from tests.conftest import ROOT
from tests.unit.fake_runs import DIVERGED, PLAN, TEST_CONFIG, write_run
from tests.unit.in_process import east
from tests.unit.test_cli import east_process

RUNS = list(PLAN)
HOSTILE = "RuntimeError: [/bold] [red]x[/red] :boom: → \x1b[2J\u202e end"


@pytest.fixture
def end(tmp_path):
    """A function that ends a run."""

    def write(run, outcome=90.0):
        write_run(tmp_path / "runs", run, outcome, fingerprint=PLAN[run].fingerprint)

    return write


@pytest.fixture
def mixed(tmp_path, end):
    """A results folder with a run that is done, one that diverged, one that runs, one that failed."""
    end(RUNS[0])
    end(RUNS[1], DIVERGED)
    running = tmp_path / "runs" / RUNS[2]
    state = StateFile(running, epochs=2, device="cpu", threads=1).state
    log = tmp_path / "logs" / "train" / f"{RUNS[3]}.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"epoch 1/2\n{HOSTILE}\n")
    with locked(running):
        # Of a clock that is ahead, so that nothing of the next epoch seems to have gone by.
        ahead = {"updated": datetime.now(UTC) + timedelta(hours=1)}
        state = state.model_copy(
            update={"epoch": 1, "step": 6, "test_accuracy": 61.5, "seconds_per_epoch": 30.0, **ahead}
        )
        (running / "state.json").write_text(state.model_dump_json())
        yield tmp_path


def status(folder, *arguments, run=east):
    return run("status", "--configfile", TEST_CONFIG, "--results", folder, *arguments)


def test_the_overview_has_a_line_a_table_and_the_runs_that_matter(mixed):
    done = status(mixed)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["table2", "1/4", "1", "–", "1", "1", "~", "30", "s"] in lines
    assert ["table3", "0/2", "–", "2", "–", "–", "–"] in lines
    assert [RUNS[2], "1/2", "61.50", "30.0", "~", "30", "s"] in [line[:7] for line in lines]
    assert f"process {os.getpid()}, cpu" in done.stdout
    assert "RuntimeError: [/bold] [red]x[/red] :boom: → [U+202E] end" in done.stdout
    assert f"log: {mixed}/logs/train/{RUNS[3]}.log" in done.stdout
    assert f"{RUNS[1]}  in epoch 7" in done.stdout
    assert f"  {RUNS[0]}  test" not in done.stdout
    assert f"  {RUNS[0]}  test 90.00 %, 1 min" in status(mixed, "--all").stdout


def test_the_output_may_lack_characters_of_a_log(mixed):
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = status(mixed, run=partial(east_process, env=ascii_only))
    assert (done.returncode, done.stderr) == (0, "")
    assert ":boom: ? [U+202E] end" in done.stdout


def test_json_has_the_documented_keys(mixed):
    content = json.loads(status(mixed, "--json").stdout)
    assert list(content) == ["schema", "name", "time", "total", "tables", "runs"]
    states = ["done", "running", "stopped", "failed", "lost", "diverged", "stale", "waiting"]
    assert list(content["total"]) == ["runs", *states, "eta_seconds", "eta_complete"]
    assert [content["total"][state] for state in states] == [1, 1, 0, 1, 0, 1, 0, 2]
    assert [table["id"] for table in content["tables"]] == ["table2", "table3", "tablemethods"]
    assert json.loads(status(mixed, "--json", "--table", "table3").stdout)["total"]["runs"] == 2
    run = content["runs"][3]
    assert run == dict.fromkeys(run) | {
        "id": RUNS[3],
        "state": "failed",
        "epochs": 2,
        "message": "RuntimeError: [/bold] [red]x[/red] :boom: → [U+202E] end",
        "log": f"{mixed}/logs/train/{RUNS[3]}.log",
    }
    documented = re.findall(r"`(\w+)`", (ROOT / "docs" / "status.md").read_text().partition("## JSON")[2])
    assert {*content, *content["total"], *run} - set(states) <= set(documented)


def watch(folder, **settings):
    command = [sys.executable, "-m", "east", "status", "--configfile", str(TEST_CONFIG), "--results", str(folder)]
    return subprocess.Popen([*command, "--watch", "--interval", "0.1"], cwd=ROOT, **settings)


def test_watching_without_a_terminal_prints_changes_and_ends_with_the_plan(tmp_path, end):
    with watch(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0 of 6 runs done, 6 waiting\n"
        end(RUNS[0])
        facts = "test 90.00 %, 1 min, reproducibility: any processor"
        assert process.stdout.readline().split(maxsplit=1)[1] == f"done      {RUNS[0]}  {facts}  [1/6]\n"
        for run in RUNS[1:]:
            end(run, DIVERGED)
        lines = process.stdout.read().splitlines()
        assert (len(lines), lines[-1]) == (6, "1 of 6 runs done, 5 diverged")
        assert (process.wait(), process.stderr.read()) == (0, "")


def test_an_interrupt_ends_watching_quietly(tmp_path):
    with watch(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(), process.stdout.read(), process.stderr.read()) == (130, "", "")


def test_watching_on_a_terminal_draws_in_place(tmp_path, end):
    def until(text):
        seen = ""
        while text not in seen:
            assert select.select([screen], [], [], 30)[0]
            seen += os.read(screen, 65536).decode()
        return seen

    screen, terminal = pty.openpty()
    with watch(tmp_path, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm"}) as process:
        until("0/6")
        for run in RUNS:
            end(run)
        redrawn = until("6/6")
        assert process.wait() == 0
    os.close(terminal)
    os.close(screen)
    assert "\x1b[1A" in redrawn
