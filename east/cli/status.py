"""`east status`: how far the plan is, read from the files of its runs."""

import io
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from east.cli.app import app
from east.cli.input import read_plan
from east.cli.options import AsJson, ConfigFiles, Results
from east.cli.output import print_json
from east.errors import EastError
from east.operations.on_disk import results_folder
from east.operations.status import PlanStatus, StatusReader
from east.operations.status_json import status_json

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@app.command()
def status(
    configfile: ConfigFiles = None,
    results: Results = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Only the runs of this table, for example table2; may be given again.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every run, those that are done or wait too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every run is done or diverged.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --watch.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show which runs of the plan are done, running, failed or waiting, and the time that is left."""
    if watch and as_json:
        raise EastError("--json is one look at the plan, --watch is many. Leave one of them out.")
    plan = read_plan(configfile)
    reader = StatusReader(plan, results_folder(plan, results), table or ())
    if as_json:
        print_json(status_json(reader.read()))
        return
    from east.cli.status_view import make_console, overview, watch_lines, watch_screen

    # A log may hold characters that the encoding of the output lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
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
        raise typer.Exit(INTERRUPTED) from None


def _looks(reader: StatusReader, interval: float) -> Iterator[PlanStatus]:
    """The plan again and again, until nothing is left to run."""
    while True:
        look = reader.read()
        yield look
        if look.total.finished:
            return
        time.sleep(interval)
