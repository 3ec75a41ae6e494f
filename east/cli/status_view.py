"""How `east status` shows a plan to people: a line a table, then the runs that matter now."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from east.analysis.words import sharing_text
from east.operations.run_files import RunStatus, State
from east.operations.status import STATES, PlanStatus, Tally
from east.render.numbers import DASH, duration, fixed
from east.shown import say

STYLES: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "stopped": "yellow",
    "failed": "bold red",
    "lost": "red",
    "diverged": "magenta",
    "stale": "yellow",
    "waiting": "dim",
}
NEXT: dict[State, str] = {
    "stopped": "Snakemake, started again, goes on from the checkpoints",
    "failed": "fix the cause; Snakemake, started again, goes on from the last checkpoints",
    "lost": "the processes are gone; Snakemake, started again, goes on from the last checkpoints",
    "diverged": "the tables count them as such; nothing is left to do",
    "stale": "Snakemake trains them again; where it finds nothing to do, add --forcerun with their summary.json",
}
"""What happens to runs in a state next, or what to do about them."""
SHOWN = 100
SHOWN_WAITING = 3
"""Runs that a list shows at most without --all: those that run or need a look, and those that wait."""


def watch_screen(looks: Iterable[PlanStatus], console: Console, *, everything: bool) -> None:
    """Draw look after look in the same place of a terminal."""
    with Live(console=console, auto_refresh=False) as live:
        for status in looks:
            shown = max(SHOWN_WAITING, (console.height - len(status.tables)) // 3)
            live.update(overview(status, everything=everything, shown=shown), refresh=True)


def watch_lines(looks: Iterable[PlanStatus]) -> None:
    """Print how far the plan is at first and at last, and in between a line for every run whose state changes."""
    states: dict[str, State] = {}
    for status in looks:
        total = status.total
        for run in status.runs:
            if states and states[run.id] != run.state:
                clock = f"{status.time.astimezone():%H:%M:%S}"
                share = f"[{total.ended}/{total.runs}]"
                say(f"{clock}  {run.state:<8}  {run_line(run)}  {share}")
        if not states or total.finished:
            counts = [f"{total.counts[state]} {state}" for state in STATES[1:] if total.counts[state]]
            left = [] if total.finished or total.eta.seconds is None else [f"{_eta(total)} left"]
            done = ", ".join([f"{total.counts['done']} of {total.runs} runs done", *counts])
            say("; ".join([done, *left]))
        states = {run.id: run.state for run in status.runs}


def overview(status: PlanStatus, *, everything: bool = False, shown: int = SHOWN) -> RenderableType:
    """The whole picture: the tables, and every run, or those that run or need a look and some that wait.

    Unless everything is listed, a list shows at most so many runs.
    """
    parts: list[RenderableType] = [_tables(status)]
    total = status.total
    if total.eta.seconds is not None and not total.finished:
        note = f"Time left is an estimate: {total.counts['running']} at a time, at the pace of runs of the same kind"
        parts.append(Text(f"{note}." if total.eta.complete else f"{note}; > where a kind has none yet.", style="dim"))
    states: list[State] = ["running", *NEXT, "done", "waiting"]
    for state in states:
        runs = [run for run in status.runs if run.state == state]
        if runs and (everything or state != "done"):
            limit = len(runs) if everything else SHOWN_WAITING if state == "waiting" else shown
            listed = [_running(runs[:limit])] if state == "running" else _listed(state, len(runs), runs[:limit])
            parts += [Text(), *listed]
            if len(runs) > limit:
                parts.append(Text(f"  and {len(runs) - limit} more (--all lists them)", style="dim"))
    return Group(*parts)


def run_line(run: RunStatus) -> str:
    """A run and how far it is, in one line, without its state."""
    facts: list[str | None] = []
    if run.state == "done":
        facts.append(f"test {fixed(run.test_accuracy)} %")
        if run.seconds is not None:
            facts += [duration(run.seconds), sharing_text(run.runs_per_device)]
        facts.append(run.reproducibility and f"reproducibility: {run.reproducibility}")
    elif run.state == "diverged":
        facts.append(f"in epoch {run.epoch}" if run.epoch is not None else None)
    elif run.epoch is not None:
        facts.append(f"epoch {run.epoch}/{run.epochs}")
        facts.append(f"test {fixed(run.test_accuracy)} %" if run.test_accuracy is not None else None)
        facts.append(_place(run) if run.state in ("running", "failed") else None)
    facts.append(run.message)
    return "  ".join(filter(None, [run.id, ", ".join(filter(None, facts))]))


def _tables(status: PlanStatus) -> Table:
    states = ("running", "waiting", *(state for state in STATES[2:-1] if status.total.counts[state]))
    table = Table(box=None, pad_edge=False)
    for column in (status.name, "done", *states, "time left"):
        table.add_column(column, justify="left" if column == status.name else "right", no_wrap=True)
    for name, tally in [*status.tables.items(), ("all", status.total)]:
        cells = [
            Text(str(tally.counts[state] or DASH), style=STYLES[state] if tally.counts[state] else "dim")
            for state in states
        ]
        done = Text(f"{tally.counts['done']}/{tally.runs}", style=STYLES["done"] if tally.finished else "")
        table.add_row(Text(name), done, *cells, Text(_eta(tally)))
    return table


def _eta(tally: Tally) -> str:
    if tally.finished or tally.eta.seconds is None:
        return DASH
    return f"{'~' if tally.eta.complete else '>'} {duration(tally.eta.seconds)}"


def _running(runs: Sequence[RunStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("running", style=STYLES["running"], no_wrap=True)
    for column in ("epoch", "test %", "s/epoch", "time left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for run in runs:
        gpu = run.gpu and f"GPU {run.gpu}"
        table.add_row(
            Text(run.id),
            Text(f"{run.epoch}/{run.epochs}"),
            Text(fixed(run.test_accuracy)),
            Text(fixed(run.seconds_per_epoch, 1)),
            Text(DASH if run.eta_seconds is None else f"~ {duration(run.eta_seconds)}"),
            Text(", ".join(filter(None, (_place(run), run.device, gpu, sharing_text(run.runs_per_device))))),
        )
    return table


def _listed(state: State, count: int, runs: Sequence[RunStatus]) -> Iterator[Text]:
    """How many runs are in a state, and some of them, with the logs of those that need a look."""
    yield Text(f"{count} {state}: {NEXT[state]}." if state in NEXT else f"{count} {state}", style=STYLES[state])
    for run in runs:
        yield Text(f"  {run_line(run)}", style="" if state in NEXT else "dim")
        yield from (Text(f"    log: {log}", style="dim") for log in (run.log, run.slurm_log) if log)


def _place(run: RunStatus) -> str | None:
    """Machine and Slurm job, or process."""
    if run.host is None:
        return None
    return f"{run.host} job {run.job}" if run.job else f"{run.host} process {run.pid}"
