"""The tables of a report at a glance: what ran, and whether cycles beat the static row here and in the paper."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods
from east.analysis.provenance import table_coverage
from east.render.names import DATASETS, NETWORKS, table_label
from east.render.numbers import DASH, NOT_AVAILABLE, accuracy_text, fixed, signed
from east.render.templating import REPORT_FOLDER, caption
from east.render.view import Cell, Column, TableView, ViewRow


def overview_view(
    tables: Sequence[AggregatedGrid | AggregatedMethods], report_folder: Path = REPORT_FOLDER
) -> TableView | None:
    """A row for each of Tables 2-5, or None if there is none of them.

    No row is picked as the best: with sixteen noisy rows, the best of them says little.
    """
    grids = [table for table in tables if isinstance(table, AggregatedGrid)]
    if not grids:
        return None
    return TableView(
        id="overview",
        caption=caption("overview", report_folder, comparable=all(grid.comparable for grid in grids)),
        columns=(
            Column(label="Table"),
            Column(label="Network"),
            Column(label="Data"),
            Column(label="Finished", align="right"),
            Column(label="Static (%)", align="right"),
            Column(label="Cyclic, range (%)", align="right"),
            Column(label="here", group="Cyclic above static", align="right"),
            Column(label="paper", group="Cyclic above static", align="right"),
            Column(label="Mean difference", align="right"),
        ),
        rows=tuple(_row(grid) for grid in grids),
    )


def _row(grid: AggregatedGrid) -> ViewRow:
    coverage = table_coverage([grid])
    cyclic = [row for row in grid.rows if row.pattern is not None]
    means = [row.accuracy.mean for row in cyclic if row.accuracy.mean is not None]
    differences = [row.difference for row in grid.rows if row.difference is not None]
    static = grid.static
    return ViewRow(
        cells=(
            Cell(text=(table_label(grid.id) or grid.id).removeprefix("Table ")),
            Cell(text=NETWORKS[grid.model]),
            Cell(text=DATASETS[grid.dataset]),
            Cell(
                text=f"{coverage.finished} of {coverage.planned}",
                tone="plain" if coverage.finished == coverage.planned else "missing",
            ),
            Cell(text=accuracy_text(static.accuracy) if static else DASH),
            Cell(text=f"{fixed(min(means))} – {fixed(max(means))}" if means else NOT_AVAILABLE),
            Cell(text=_above([row.change for row in cyclic])),
            Cell(text=_above([row.published.change_from_means if row.published else None for row in cyclic])),
            Cell(text=signed(statistics.fmean(differences), 2) if differences and grid.comparable else DASH),
        )
    )


def _above(changes: Sequence[float | None]) -> str:
    known = [change for change in changes if change is not None]
    return f"{sum(change > 0 for change in known)} of {len(known)}" if known else DASH
