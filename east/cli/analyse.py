"""A step of the workflow: how the summarised tables stand to the paper's."""

from pathlib import Path
from typing import Annotated

import typer

from east.cli.app import app


@app.command()
def analyse(
    out: Annotated[Path, typer.Option(help="File for the result, JSON.")],
    aggregated: Annotated[list[Path] | None, typer.Argument(help="Summarised tables, JSON.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="Folder of the paper's numbers; report/published if absent.")
    ] = None,
) -> None:
    """Compare Tables 2-5 with the paper's, test its claims on both, and audit what it prints.

    Summarised tables of another kind are left out: the paper prints no accuracies beside the methods.
    """
    from east.analysis.aggregate import AggregatedGrid, read_json
    from east.analysis.evidence import gather, write_evidence
    from east.render.templating import REPORT_FOLDER

    tables = [table for path in aggregated or [] if isinstance(table := read_json(path), AggregatedGrid)]
    write_evidence(gather(tables, published or REPORT_FOLDER / "published"), out)
