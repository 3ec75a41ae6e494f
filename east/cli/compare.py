"""`east compare`: two trainings of a run, by their traces."""

from pathlib import Path
from typing import Annotated

import typer

from east.cli.app import app
from east.errors import EastError

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")]


@app.command()
def compare(run_a: RunFolder, run_b: RunFolder) -> None:
    """Compare the traces of two trainings and name the first step at which their states differ, and in what."""
    from east.training.folder import TRACE
    from east.training.trace import compare_traces, read_trace

    one, other = (read_trace(folder / TRACE) for folder in (run_a, run_b))
    found = compare_traces(one, other)
    if found.difference is not None:
        same = one[found.rows - 1].step if found.rows else None
        print(f"first difference: {found.difference}" + ("" if same is None else f"; the same to step {same}"))
        raise EastError("the two runs are not the same from there on.")
    if len(one) == len(other):
        print(f"the same in all {found.rows} rows, to step {one[-1].step}.")
    else:
        shorter = min((one, run_a), (other, run_b), key=lambda each: len(each[0]))
        print(f"the same to step {shorter[0][-1].step}, where {shorter[1]} ends.")
