"""What commands show on a terminal or in a file, of made-up plans, runs and findings, as text.

`tests/unit/views/` holds what each should be; see `tests/unit/test_cli_views.py`.
"""

import inspect as inspection
import io
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.console import RenderableType

from east.analysis.sources import Sources, read_run_record
from east.cli import COMMANDS
from east.cli.console import VisibleConsole
from east.cli.show_view import run_view
from east.cli.status_view import overview, watch_lines
from east.config import Run
from east.cost.timing import KindTimes, PartSeconds, Situation
from east.operations.doctor.surroundings import Finding
from east.operations.estimate import Cost, Estimate
from east.operations.kinds import KindSeconds
from east.operations.run_files import RunStatus, State
from east.operations.status import STATES, Eta, PlanStatus, Tally
from east.training.records import EpochRecord, UpdateRecord
from tests.unit.cost_specs import make_spec
from tests.unit.fake_runs import PLAN, TEST_CONFIG, seal, write_curve, write_planned_run, write_rows
from tests.unit.in_process import east

STATIC, CYCLIC = PLAN["table2/static/seed1"], PLAN["table2/cosine-m3-n1/seed1"]


def drawn(renderable: RenderableType, width: int, *, colours: bool = False) -> str:
    """Something that rich draws; the escapes of its colours are visible."""
    out = io.StringIO()
    system = "standard" if colours else None
    console = VisibleConsole(
        file=out, width=width, force_terminal=colours, color_system=system, markup=False, emoji=False, _environ={}
    )
    console.print(renderable)
    return out.getvalue().replace("\x1b", "␛")


@contextmanager
def on_a_terminal(columns: int) -> Iterator[None]:
    """For rich, whatever standard output and standard error are."""
    with on_no_terminal(), pytest.MonkeyPatch.context() as patch:
        for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
            patch.setenv(name, value)
        yield


@contextmanager
def on_no_terminal() -> Iterator[None]:
    """As if nothing of a terminal were set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        yield


# east status

RUNNING = RunStatus("table2/a/seed1", "running", 10, host="node17", pid=4711, device="a GPU", epoch=3)
RUNS = (
    replace(
        RUNNING,
        test_accuracy=61.5,
        seconds_per_epoch=30.04,
        eta_seconds=210.0,
        job="99_3",
        gpu="3",
        runs_per_device=2,
    ),
    replace(RUNNING, id="table2/a/seed2", epoch=0, device="cpu"),
    RunStatus("table2/b/seed1", "stopped", 10, epoch=2, test_accuracy=50.0, host="node17", pid=1),
    RunStatus("table2/b/seed2", "stopped", 10, epoch=0, host="node17", pid=1),
    RunStatus(
        "table2/c/seed1", "failed", 10, epoch=4, test_accuracy=55.5, host="node18", pid=2, message="out of memory"
    ),
    RunStatus("table2/c/seed2", "failed", 10, message="no such file", log="logs/c.log", slurm_log="slurm/7.log"),
    RunStatus("table2/c/seed3", "failed", 10, message="no such file", log="logs/d.log"),
    RunStatus("table2/d/seed1", "lost", 10, epoch=4, host="node19", pid=3, message="process 3 is gone from node19"),
    RunStatus("table3/a/seed1", "diverged", 10, epoch=7),
    RunStatus("table3/a/seed2", "diverged", 10),
    RunStatus("table3/b/seed1", "stale", 10, message="its summary.json is of other settings than the plan's"),
    RunStatus(
        "table4/a/seed1",
        "done",
        10,
        epoch=10,
        test_accuracy=90.0,
        seconds=7500.0,
        runs_per_device=2,
        reproducibility="any processor",
    ),
    RunStatus("table4/a/seed2", "done", 10, epoch=10, test_accuracy=91.25),
    *(RunStatus(f"table5/a/seed{seed}", "waiting", 10) for seed in range(1, 6)),
)


def tally(runs: tuple[RunStatus, ...], eta: Eta) -> Tally:
    counted = Counter(run.state for run in runs)
    return Tally(len(runs), {state: counted[state] for state in STATES}, eta)


def plan_status(runs: tuple[RunStatus, ...], *etas: Eta) -> PlanStatus:
    """A plan with these runs; the estimate of all, and of each table in turn."""
    tables = {run.id.partition("/")[0]: tuple[RunStatus, ...]() for run in runs}
    for run in runs:
        tables[run.id.partition("/")[0]] += (run,)
    of_tables = {table: tally(some, eta) for (table, some), eta in zip(tables.items(), etas[1:], strict=True)}
    # Noon where the tests run, said in another zone.
    time = datetime(2026, 1, 2, 12, 0, 5).astimezone().astimezone(UTC)
    return PlanStatus("a plan", time, tally(runs, etas[0]), of_tables, runs)


UNKNOWN = Eta(None, complete=False)
BUSY = plan_status(
    RUNS, Eta(5400.0, complete=False), Eta(210.0, complete=True), Eta(60.0, complete=True), UNKNOWN, UNKNOWN
)


def status_on_a_terminal(_: Path) -> str:
    return drawn(overview(BUSY, shown=2), 120, colours=True)


def status_of_every_run(_: Path) -> str:
    return drawn(overview(BUSY, everything=True), 120)


def status_on_a_narrow_terminal(_: Path) -> str:
    return drawn(overview(BUSY), 70)


def status_of_a_plan_that_nears_its_end(_: Path) -> str:
    """One run is left, then none."""
    runs = (RUNS[11], RUNS[0])
    left = plan_status(runs, Eta(210.0, complete=True), UNKNOWN, Eta(210.0, complete=True))
    done = plan_status((RUNS[11], RUNS[8]), Eta(9.0, complete=True), UNKNOWN, UNKNOWN)
    return drawn(overview(left), 120) + "\n" + drawn(overview(done), 120, colours=True)


def changes_while_watching(_: Path) -> str:
    def look(*states: State, eta: Eta) -> PlanStatus:
        runs = tuple(RunStatus(f"table2/a/seed{i}", state, 2, epoch=1) for i, state in enumerate(states))
        return plan_status(runs, eta, eta)

    looks = [
        look("waiting", "running", "waiting", eta=Eta(90.0, complete=False)),
        look("waiting", "running", "waiting", eta=UNKNOWN),
        look("running", "done", "waiting", eta=UNKNOWN),
        look("diverged", "done", "waiting", eta=Eta(60.0, complete=True)),
        look("diverged", "done", "done", eta=Eta(60.0, complete=True)),
    ]
    with redirect_stdout(out := io.StringIO()):
        watch_lines(looks[:1])
        watch_lines(looks)
    return out.getvalue()


# east show


@dataclass(frozen=True)
class Shown:
    """A run as `east show` has it."""

    run: Run
    status: RunStatus
    folder: Path

    def view(self, **options: bool | int) -> RenderableType:
        return run_view(self.run, self.status, read_run_record(Sources(self.folder), self.run.id), **options)


def finished_run(folder: Path) -> Shown:
    """With every line that a summary can have, and more mask updates than are shown."""
    summary = {
        "nonzeros": 10_633,
        "masked_weights": 21_265_088,
        "parameters": {"batch_norm": 17_024, "dyrelu": 3_181_168},
        "liveness": {"live_channels": 4000, "channels": 8512},
        "runs_per_device": 2,
        "attempts": 3,
        "peak_memory_mb": 812.6,
        "versions": {"python": "3.12.1", "torch": "2.13.0", "triton": None},
    }
    of_run = write_planned_run(folder / "runs", CYCLIC, 71.25, **summary)
    write_curve(of_run, [10.0, 42.5, 80.0, 71.25])
    kinds = ["initial", *["cycle", "exchange"] * 30]
    updates = (
        {
            "step": 10 * i,
            "epoch": i,
            "kind": kind,
            "density": 0.03 + 0.001 * (i % 7),
            "nonzeros": 10_000 + 100 * i,
            "dropped": 40 * i,
            "grown": 50 * i,
            "blind_growth": i // 2,
            "active_zeros": 7 if i % 2 else 0,
            "live_channels": 4000 + i,
            "channels": 0 if i == 0 else 8512,
        }
        for i, kind in enumerate(kinds)
    )
    write_rows(of_run, UpdateRecord, *updates)
    status = replace(RUNS[11], id=CYCLIC.id, test_accuracy=71.25)
    return Shown(CYCLIC, status, folder)


def show_on_a_terminal(folder: Path) -> str:
    return drawn(finished_run(folder).view(), 80, colours=True)


def show_with_every_update_on_a_wide_terminal(folder: Path) -> str:
    return drawn(finished_run(folder).view(everything=True, width=200), 200)


def show_on_a_narrow_terminal_without_unicode(folder: Path) -> str:
    return drawn(finished_run(folder).view(ascii_only=True, width=20), 20)


def show_a_run_that_diverged(folder: Path) -> str:
    """A static run whose last accuracy is none, whose updates cannot be read, and whose summary lacks counts."""
    of_run = write_planned_run(folder / "runs", STATIC, 50.0, epochs=2, nonzeros=7, liveness={"channels": 10})
    write_curve(of_run, [30.0, 20.0, math.nan])
    changes = {"status": "diverged", "final_test_accuracy": None, "best_test_accuracy": None, "seconds": None}
    seal(of_run / "summary.json", **changes, diverged_at_epoch=3, diverged_at_step=18, versions={}, commit=None)
    (of_run / "updates.csv").write_text("x")
    with chdir(folder):  # the path of the damaged file is shown
        return drawn(Shown(STATIC, replace(RUNS[8], id=STATIC.id, epoch=3), Path()).view(), 80, colours=True)


def show_a_run_that_failed_before_its_first_epoch(folder: Path) -> str:
    of_run = folder / "runs" / STATIC.id
    of_run.mkdir(parents=True)
    write_rows(of_run, EpochRecord)
    status = replace(RUNS[5], id=STATIC.id)
    return drawn(Shown(STATIC, status, folder).view(), 80, colours=True)


# east doctor

LONG = "that is so long that a terminal, or whoever reads it in a file, needs more than one line for all of its words"
FOLDERS = "folder/" * 20
FINDINGS = {
    "Python [bold]and[/bold] packages": [Finding("ok", "Python 3.12 :boom:")],
    "Disk": [
        Finding("note", f"a sentence {LONG}, well-nigh end-lessly-hyphenated-as-it-is", "a reason", "df -h"),
        Finding(
            "warning", f"/{'folder/' * 20} [red]is full[/red]", f"It is a reason {LONG}.", f"rm -r {'folder/' * 20}"
        ),
    ],
    "Data": [Finding("error", "CIFAR-10: its 5 files are gone", "Every run on it would stop", "east prepare cifar10")],
}


def doctor(findings: dict[str, list[Finding]], *options: str) -> CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("east.operations.doctor.checks.examine", lambda here: findings)
        return east("doctor", "--configfile", TEST_CONFIG, *options)


def doctor_in_a_file(_: Path) -> str:
    with on_no_terminal():
        done = doctor(FINDINGS)
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


def doctor_on_a_terminal(_: Path) -> str:
    with on_a_terminal(columns=60):
        done = doctor(FINDINGS)
    assert "Looking around" in done.stderr
    return done.stdout.replace("\x1b", "␛")


def doctor_as_json(_: Path) -> str:
    done = doctor({"Disk": FINDINGS["Disk"]}, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# east estimate

COSTS = {
    "table2": Cost(runs=40, left=30, seconds=200_000.0, wall_seconds=100_000.0, disk_bytes=5_000_000_000),
    "table3": Cost(runs=4, left=4, seconds=90.0, wall_seconds=45.0, disk_bytes=7000),
}
TOTAL = Cost(runs=44, left=34, seconds=200_090.0, wall_seconds=100_045.0, disk_bytes=5_000_007_000)


def kind_seconds(batch: int) -> KindSeconds:
    parts = {
        Situation(True, 0.1): PartSeconds(1.0, 2.0, 3.0, 4.0),
        Situation(False, 0.1): PartSeconds(5.0, 6.0, 7.0, 8.0),
    }
    return KindSeconds([KindTimes(1.5, 0.25, 1000, batch, parts)])


ESTIMATE = Estimate(
    COSTS,
    TOTAL,
    run_seconds={"table2/a/seed1": 5000.0},
    start_seconds=2.25,
    checkpoint_bytes=3_000_000,
    data_bytes=170_000_000,
    kinds={
        make_spec(activation="dyrelu", batch_size=64): (30, kind_seconds(64)),
        make_spec(dataset="cifar10", batch_size=128): (3, kind_seconds(32)),
        make_spec(dataset="imagenet", batch_size=128): (1, kind_seconds(127)),
    },
    warnings=("warning: a first one", "a second one"),
)


def estimate(folder: Path, *options: str, found: Estimate = ESTIMATE) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("east.operations.estimate.estimate", lambda *_: found)
        patch.setattr("east.training.provenance.device_name", lambda _: "a processor")
        arguments = (
            "--configfile",
            TEST_CONFIG,
            "--results",
            folder,
            "--cores",
            "1",
            "--jobs",
            "3",
            "--engine",
            "dense",
        )
        done = east("estimate", *arguments, *options)
    assert done.returncode == 0
    return done.stdout + done.stderr


def estimate_of_a_plan(folder: Path) -> str:
    return estimate(folder)


def estimate_of_little(folder: Path) -> str:
    """Of one run that is left, of a kind that was timed in whole batches; exactly a hundred hours."""
    cost = Cost(runs=1, left=1, seconds=360_000.0, wall_seconds=360_000.0, disk_bytes=1)
    kinds = {make_spec(batch_size=64): (1, kind_seconds(64))}
    return estimate(folder, found=replace(ESTIMATE, tables={}, total=cost, data_bytes=0, kinds=kinds, warnings=()))


def estimate_as_json(folder: Path) -> str:
    return estimate(folder, "--json")


# Commands that describe the plan


def plan_with_notes(folder: Path) -> str:
    overlay = folder / "overlay.yaml"
    overlay.write_text("execution: {step: captured, runs_per_gpu: 2}")
    done = east("plan", "--configfile", TEST_CONFIG, "--configfile", overlay)
    assert done.returncode == 0
    return done.stdout + done.stderr


def inspect(_: Path) -> str:
    return east("inspect", CYCLIC.id, "--configfile", TEST_CONFIG).stdout


def schedule(_: Path) -> str:
    return east("schedule", CYCLIC.id, "--configfile", TEST_CONFIG).stdout


# All commands


def options(_: Path) -> str:
    """What every command takes, and what counts where it is not given."""
    lines = []
    for command, function in [item for commands in COMMANDS.values() for item in commands.items()]:
        for parameter in inspection.signature(function).parameters.values():
            (info,) = parameter.annotation.__metadata__
            default = parameter.default
            if parameter.name in ("cores", "threads") and default is not None:
                assert default == (os.cpu_count() or 1)
                default = "the cores of this machine"
            facts = {
                "default": "none" if default is parameter.empty else repr(default),
                "at least": info.min,
                "from": info.envvar,
                "hidden": info.hidden,
                "completed": info.autocompletion is not None,
            }
            said = ", ".join(f"{fact} {value}" for fact, value in facts.items() if value not in (None, False))
            lines.append(f"{command} {parameter.name}: {said}\n")
    return "".join(lines)


VIEWS = {
    view.__name__: view
    for view in (
        status_on_a_terminal,
        status_of_every_run,
        status_on_a_narrow_terminal,
        status_of_a_plan_that_nears_its_end,
        changes_while_watching,
        show_on_a_terminal,
        show_with_every_update_on_a_wide_terminal,
        show_on_a_narrow_terminal_without_unicode,
        show_a_run_that_diverged,
        show_a_run_that_failed_before_its_first_epoch,
        doctor_in_a_file,
        doctor_on_a_terminal,
        doctor_as_json,
        estimate_of_a_plan,
        estimate_of_little,
        estimate_as_json,
        plan_with_notes,
        inspect,
        schedule,
        options,
    )
}
"""Name of a file in `views/` -> what makes it in an empty folder."""
