"""`east show`: one run, read from the files in its folder."""

import io
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from east.cli.app import app
from east.cli.input import read_plan
from east.cli.options import ConfigFiles, Results, RunId
from east.operations.on_disk import results_folder


@app.command()
def show(
    run_id: RunId,
    configfile: ConfigFiles = None,
    results: Results = None,
    everything: Annotated[bool, typer.Option("--all", help="List every mask update.")] = False,
) -> None:
    """Show a run, finished or not: its curve, its masks over time and its summary."""
    from east.cli.show_view import run_view
    from east.cli.status_view import make_console
    from east.operations.run_files import RunFiles
    from east.training.records import read_run_record

    plan = read_plan(configfile)
    run = plan.run(run_id)
    folder = results_folder(plan, results)
    status = RunFiles(folder).status(run.id, run.fingerprint, run.spec.training.epochs, datetime.now(UTC))
    # A file may hold characters that the encoding of the output lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = make_console()
    ascii_only = not console.encoding.lower().startswith("utf")
    record = read_run_record(folder / "runs", run.id)
    view = run_view(run, status, record, ascii_only=ascii_only, everything=everything, width=console.width)
    console.print(view)
