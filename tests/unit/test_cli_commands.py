"""What commands for results, and for looking at them, say; what they draw of a plan is in `test_cli_views.py`."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest

from east.cli import main
from east.cli.console import VisibleConsole
from east.cli.plot import bars, curve
from east.cli.status import _looks
from east.cli.status_view import overview, watch_screen
from east.operations.run_files import RunStatus
from east.plugins import NO_PLUGINS
from east.training.records import TraceRecord
from tests.unit.cli_views import BUSY, UNKNOWN, on_a_terminal, plan_status
from tests.unit.fake_runs import PLAN, TEST_CONFIG, write_planned_run, write_rows
from tests.unit.in_process import east

RUN = PLAN["table2/static/seed1"]
CONFIGURED = ("--configfile", TEST_CONFIG)

# Results


def trace(folder, *steps, **last):
    """The trace of a run, of which the last row may be changed."""
    rows = [{"step": step, "epoch": 1, "event": "step", "state": f"state {step}", "masks": "m"} for step in steps]
    folder.mkdir()
    write_rows(folder, TraceRecord, *rows[:-1], rows[-1] | last)
    return folder


def test_two_trainings_are_compared_as_far_as_both_go(tmp_path):
    whole, same = trace(tmp_path / "whole", 0, 5, 9), trace(tmp_path / "same", 0, 5, 9)
    begun = trace(tmp_path / "begun", 0, 5)
    assert east("compare", whole, same).stdout == "the same in all 3 rows, to step 9.\n"
    for pair in ((whole, begun), (begun, whole)):
        assert east("compare", *pair).stdout == f"the same to step 5, where {begun} ends.\n"
    other = trace(tmp_path / "other", 0, 5, 9, state="another", masks="others")
    done = east("compare", whole, other)
    assert (done.returncode, done.stdout) == (
        1,
        "first difference: step 9 in epoch 1 (step): masks; the same to step 5\n",
    )
    unlike, another = trace(tmp_path / "unlike", 0, state="x"), trace(tmp_path / "another", 3)
    assert east("compare", whole, unlike).stdout == "first difference: step 0 in epoch 1 (step): state\n"
    said = east("compare", another, whole).stdout
    assert said.index("step 3") < said.index("step 0")


@pytest.fixture
def place(tmp_path):
    """A folder to work in, with all runs of the plan finished in `results/test`."""
    for run in PLAN.values():
        write_planned_run(tmp_path / "results" / "test" / "runs", run)
    return tmp_path


def test_results_are_those_of_the_configuration_in_the_working_directory(place):
    def said(*arguments):
        done = east(*arguments, folder=place)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert said("lock", *CONFIGURED) == "results/test/results.lock.json: 6 of 6 runs\n"
    assert said("verify", "results/test/results.lock.json") == (
        "36 files of 6 runs in results/test are as results/test/results.lock.json says.\n"
    )
    packed = said("archive", "a.tar.gz", *CONFIGURED)
    size = (place / "a.tar.gz").stat().st_size
    assert packed == f"a.tar.gz: 6 of 6 runs, {size / 1000:.1f} kB\n"
    shutil.move(place / "results", place / "theirs")
    assert said("restore", "a.tar.gz") == "results/test: 6 taken, 0 there already, 0 refused.\n"
    assert said("merge", "theirs/test", *CONFIGURED) == "results/test: 0 taken, 6 there already, 0 refused.\n"


def test_what_could_not_be_removed_is_said_to_stay(place, monkeypatch):
    folder = place / "results" / "test" / "runs"
    write_planned_run(folder, RUN.model_copy(update={"id": "table2/static/seed7"}))
    monkeypatch.setattr("east.operations.prune.remove", lambda leftover, results: False)
    done = east("prune", *CONFIGURED, "--delete", folder=place)
    assert done.returncode == 1
    assert "table2/static/seed7" in done.stdout
    assert "(a training runs there: it stays)\n0 of 1 removed.\n" in done.stdout


def test_a_partial_plan_trains_nothing(place, overlay):
    done = east("plan", "--changed", *CONFIGURED, "--configfile", overlay("execution: {partial: true}"), folder=place)
    assert done.stdout.splitlines()[1:] == ["With `execution.partial: true` Snakemake trains nothing."]


@pytest.mark.parametrize("number", [2, 3])
def test_a_few_runs_that_train_for_one_reason_are_all_named(place, number):
    gone = list(PLAN)[:number]
    for run in gone:
        shutil.rmtree(place / "results" / "test" / "runs" / run)
    named = "".join(f"              {run}\n" for run in gone)
    assert east("plan", "--changed", *CONFIGURED, folder=place).stdout == (
        f"new         {number} runs: never trained\n{named}{number} of 6 runs would train, {6 - number} are done.\n"
    )


@pytest.mark.parametrize("command", ["plan", "estimate"])
def test_a_plan_that_cannot_end_is_refused(tmp_path, command):
    (tmp_path / "results").write_text("")
    done = east(command, *CONFIGURED, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "results is no folder" in done.stderr


def test_parts_are_listed_by_kind_with_what_they_are_and_their_parameters(monkeypatch):
    parts = [
        {"kind": "networks", "name": "small", "about": "of few blocks", "parameters": {"width": 64, "blocks": None}},
        {"kind": "networks", "name": "of a long name", "about": "", "parameters": {"width": 8}},
        {"kind": "topologies", "name": "set", "about": "", "parameters": {}, "paper": "SET, 2018", "plugin": "set.py"},
    ]
    parts = [{"paper": "", "plugin": None} | part for part in parts]
    asked = []
    monkeypatch.setattr("east.operations.parts.registered", lambda *of: asked.append(of) or iter(parts))
    assert east("list").stdout.splitlines() == [
        "networks:",
        "  small           of few blocks",
        "                  width = 64, blocks",
        "  of a long name  width = 8",
        "topologies:",
        "  set             SET, 2018",
        "                  in set.py",
    ]
    assert json.loads(east("list", "networks", "--json").stdout) == parts
    assert asked == [(None, NO_PLUGINS), ("networks", NO_PLUGINS)]


# status and show


def test_a_list_shows_a_hundred_runs_unless_all_are_asked_for():
    runs = tuple(RunStatus(f"table2/a/seed{number}", "lost", 2) for number in range(103))
    drawn = io.StringIO()
    VisibleConsole(file=drawn, width=200).print(overview(plan_status(runs, UNKNOWN, UNKNOWN)))
    assert drawn.getvalue().count("table2/a/seed") == 100
    assert "and 3 more" in drawn.getvalue()


def test_on_a_terminal_a_list_has_a_third_of_the_height():
    runs = tuple(RunStatus(f"table{number % 5}/a/seed{number}", "lost", 2) for number in range(12))
    look = plan_status(runs, *[UNKNOWN] * 6)

    def watched(height, *looks, everything=False):
        console = VisibleConsole(file=io.StringIO(), width=200, height=height, force_terminal=True, _environ={})
        watch_screen(looks, console, everything=everything)
        return console.file.getvalue()

    assert "and 6 more" in watched(25, look)
    assert "and 9 more" in watched(1, look)
    assert "lists them" not in watched(25, look, everything=True)
    both = watched(25, look, BUSY)
    assert both.index("table4/a/seed4") < both.index("table5/a/seed1")


def test_watching_looks_again_after_a_while_until_nothing_is_left(monkeypatch):
    naps, looks = [], iter([BUSY, BUSY, plan_status(BUSY.runs[11:13], UNKNOWN, UNKNOWN)])
    monkeypatch.setattr("time.sleep", naps.append)
    assert len(list(_looks(SimpleNamespace(read=lambda: next(looks)), 0.25))) == 3
    assert naps == [0.25, 0.25]


def test_all_runs_can_be_watched_on_a_terminal(place):
    with on_a_terminal(columns=100):
        few, every = (east("status", "--watch", *CONFIGURED, *option, folder=place) for option in ((), ("--all",)))
    assert (few.returncode, every.returncode) == (0, 0)
    assert (RUN.id in few.stdout, RUN.id in every.stdout) == (False, True)


def test_a_terminal_wraps_lines_of_the_overview_itself(place):
    shutil.rmtree(place / "results" / "test" / "runs" / RUN.id)
    log = place / "results" / "test" / "logs" / "train" / f"{RUN.id}.log"
    log.parent.mkdir(parents=True)
    log.write_text("RuntimeError: none of the words of this message may be on another line\n")
    with on_a_terminal(columns=50):
        assert (
            "none of the words of this message may be on another line"
            in east("status", *CONFIGURED, folder=place).stdout
        )


def test_a_curve_is_as_wide_as_the_terminal_and_of_its_characters(place, monkeypatch):
    with on_a_terminal(columns=40):
        lines = east("show", RUN.id, *CONFIGURED, folder=place).stdout.splitlines()
    assert len(next(line for line in lines if "└" in line)) == 40
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["east", "show", RUN.id, *map(str, CONFIGURED)])
    with redirect_stdout(stdout := io.TextIOWrapper(io.BytesIO(), "ascii")):
        main()
    stdout.flush()
    assert "+--" in stdout.buffer.getvalue().decode()


# Curves


def test_curves_are_drawn_to_the_dot():
    points = ([1, 2, 4, 5], [10.0, 40.0, 20.0, 30.5])
    assert curve(*points, end=6, width=26, height=4, ascii_only=False) == [
        "     40 │     ⡎⠑⢄",
        "        │    ⡸   ⠑⢄  ⢀⠔⠂",
        "        │   ⢠⠃     ⠑⠔⠁",
        "     10 │   ⡎",
        "        └─────────────────",
        "         0               6",
    ]
    assert curve(*points, end=6, width=26, height=4, ascii_only=True) == [
        "     40 |     ***",
        "        |    *   *** **",
        "        |   *       *",
        "     10 |   *",
        "        +-----------------",
        "         0               6",
    ]
    assert curve([1, 2], [5.0, 5.0], end=2, width=20, height=3, ascii_only=True) == [
        "    5.5 |",
        "        |     ******",
        "    4.5 |",
        "        +-----------",
        "         0         2",
    ]


def test_bars_are_drawn_to_the_eighth():
    assert bars(range(8), 8, ascii_only=False) == "▁▂▃▄▅▆▇█"
    assert bars([value / 7 for value in range(8)], 8, ascii_only=True) == "_.-=+*#%"
    # Means of 2, 2 and 3 values: 1.5, 6.5 and 9.67.
    assert bars([1, 2, 6, 7, 20, 0, 9], 3, ascii_only=True) == "_+%"
