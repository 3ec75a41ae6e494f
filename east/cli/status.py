"""`east status` and `east show`: how far the plan is, and one run of it, read from the files in their folders."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import AsJson, ConfigFiles, Results, RunId, complete_table, print_json, read_plan_and_results
from east.errors import EastError

if TYPE_CHECKING:
    from east.config import Run
    from east.operations.status import PlanStatus, StatusReader


def status(
    configfile: ConfigFiles = None,
    results: Results = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="Only the runs of this table, for example table2; may be given again.", autocompletion=complete_table
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every run, those that are done or wait too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every run is done or diverged.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --watch.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show which runs of the plan are done, running, failed or waiting, and the time that is left."""
    if watch and as_json:
        raise EastError("--json is one look at the plan, --watch is many. Leave one of them out.")
    from east.operations.status import StatusReader, status_json

    reader = StatusReader(*read_plan_and_results(configfile, results), table or ())
    if as_json:
        print_json(status_json(reader.read()))
        return
    from east.cli.console import make_console
    from east.cli.status_view import overview, watch_lines, watch_screen

    console = make_console()
    if not watch:
        console.print(overview(reader.read(), everything=everything), soft_wrap=True)
        return
    try:
        if console.is_terminal:
            watch_screen(_looks(reader, interval), console, everything=everything)
        else:
            watch_lines(_looks(reader, interval))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # as shells have it after Ctrl-C


def show(
    run_id: RunId,
    configfile: ConfigFiles = None,
    results: Results = None,
    everything: Annotated[bool, typer.Option("--all", help="List every mask update.")] = False,
) -> None:
    """Show a run, finished or not: its curve, its masks over time and its summary."""
    plan, folder = read_plan_and_results(configfile, results)
    print_run(plan.run(run_id), folder, everything=everything)


def print_run(run: "Run", folder: Path, *, everything: bool = False) -> None:
    """Print the picture of a run.

    Args:
        run: as planned; its id names its folder.
        folder: of the results.
        everything: list every mask update.
    """
    from east.analysis.sources import Sources, read_run_record
    from east.cli.console import make_console
    from east.cli.show_view import run_view
    from east.operations.run_files import RunFiles

    found = RunFiles(folder).status(run.id, run.fingerprint, run.spec.training.epochs, datetime.now(UTC))
    console = make_console()
    ascii_only = not console.encoding.lower().startswith("utf")
    record = read_run_record(Sources(folder), run.id)
    console.print(run_view(run, found, record, ascii_only=ascii_only, everything=everything, width=console.width))


def _looks(reader: "StatusReader", interval: float) -> "Iterator[PlanStatus]":
    """The plan again and again, until nothing is left to run."""
    while True:
        look = reader.read()
        yield look
        if look.total.finished:
            return
        time.sleep(interval)
