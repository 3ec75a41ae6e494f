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
PLAIN_WIDTH = 500
"""Columns where there is no terminal: enough that nothing is wrapped or cut."""


def make_console() -> Console:
    """Standard output; text is shown as it is, never taken for markup."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=PLAIN_WIDTH)


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
        for run in status.runs:
            if states and states[run.id] != run.state:
                clock = f"{status.time.astimezone():%H:%M:%S}"
                share = f"[{status.total.ended}/{status.total.runs}]"
                print(f"{clock}  {run.state:<8}  {run_line(run)}  {share}", flush=True)
        if not states or status.total.finished:
            print(total_line(status.total), flush=True)
        states = {run.id: run.state for run in status.runs}


def overview(status: PlanStatus, *, everything: bool = False, shown: int = SHOWN) -> RenderableType:
    """The whole picture.

    Args:
        status: of the plan.
        everything: list every run; else those that run, those that need a look, and some of the waiting ones.
        shown: runs that a list shows at most, unless everything is listed.
    """
    by_state: dict[State, list[RunStatus]] = {state: [] for state in STATES}
    for run in status.runs:
        by_state[run.state].append(run)
    lists: list[Iterator[RenderableType]] = [_running(by_state["running"], None if everything else shown)]
    lists += [_attention(state, by_state[state], None if everything else shown) for state in NEXT]
    if everything:
        lists.append(_plain("done", by_state["done"], None))
    lists.append(_plain("waiting", by_state["waiting"], None if everything else SHOWN_WAITING))
    parts: list[RenderableType] = [_tables(status), *_eta_note(status)]
    for part in lists:
        lines = list(part)
        if lines:
            parts += [Text(), *lines]
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


def total_line(total: Tally) -> str:
    """All runs, counted, in one line."""
    counts = [f"{total.counts[state]} {state}" for state in STATES if total.counts[state] and state != "done"]
    line = ", ".join([f"{total.counts['done']} of {total.runs} runs done", *counts])
    return f"{line}; {_eta(total)} left" if total.eta.seconds is not None and not total.finished else line


def _tables(status: PlanStatus) -> Table:
    states = ("running", "waiting", *(state for state in STATES[2:-1] if status.total.counts[state]))
    table = Table(box=None, pad_edge=False, header_style="bold")
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


def _eta_note(status: PlanStatus) -> Iterator[RenderableType]:
    total = status.total
    if total.finished or total.eta.seconds is None:
        return
    note = f"Time left is an estimate: {total.counts['running']} at a time, at the pace of runs of the same kind"
    yield Text(f"{note}." if total.eta.complete else f"{note}; > where a kind has none yet.", style="dim")


def _running(runs: Sequence[RunStatus], limit: int | None) -> Iterator[RenderableType]:
    if not runs:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("running", style=STYLES["running"], no_wrap=True)
    for column in ("epoch", "test %", "s/epoch", "time left"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for run in runs[:limit]:
        table.add_row(
            Text(run.id),
            Text(f"{run.epoch}/{run.epochs}"),
            Text(fixed(run.test_accuracy)),
            Text(fixed(run.seconds_per_epoch, 1)),
            Text(DASH if run.eta_seconds is None else f"~ {duration(run.eta_seconds)}"),
            Text(", ".join(filter(None, (_place(run), run.device, _gpu(run))))),
        )
    yield table
    yield from _more(runs, limit)


def _attention(state: State, runs: Sequence[RunStatus], limit: int | None) -> Iterator[RenderableType]:
    if not runs:
        return
    yield Text(f"{len(runs)} {state}: {NEXT[state]}.", style=STYLES[state])
    for run in runs[:limit]:
        yield Text(f"  {run_line(run)}")
        yield from (Text(f"    log: {log}", style="dim") for log in (run.log, run.slurm_log) if log)
    yield from _more(runs, limit)


def _plain(state: State, runs: Sequence[RunStatus], limit: int | None) -> Iterator[RenderableType]:
    if not runs:
        return
    yield Text(f"{len(runs)} {state}", style=STYLES[state])
    for run in runs[:limit]:
        yield Text(f"  {run_line(run)}", style="dim")
    yield from _more(runs, limit)


def _more(runs: Sequence[RunStatus], limit: int | None) -> Iterator[RenderableType]:
    if limit is not None and len(runs) > limit:
        yield Text(f"  and {len(runs) - limit} more (--all lists them)", style="dim")


def _gpu(run: RunStatus) -> str | None:
    """The GPU of a run, and how many trainings may share it."""
    return ", ".join(filter(None, (run.gpu and f"GPU {run.gpu}", sharing_text(run.runs_per_device)))) or None


def _place(run: RunStatus) -> str | None:
    """Machine and Slurm job, or process."""
    if run.host is None:
        return None
    return f"{run.host} job {run.job}" if run.job else f"{run.host} process {run.pid}"
