"""Mask churn over training: what each update dropped and grew, how much of it blindly, a strip for each row."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.curves import row_churn
from east.render.figures import Drawing, TableData, style
from east.render.names import DATASETS, network_label
from east.render.palette import PAPER, SHADES
from east.shown import visible

_QUANTITIES = {"Dropped": "dropped", "Grown": "grown", "Blind growth": "blind", "Active zeros": "zeros"}
_SHADES = LinearSegmentedColormap.from_list("shades", SHADES)
_TIMES = 240
"""Moments of a training that a strip shows."""
_MOST_ROWS = 60


def draw(data: TableData) -> Drawing:
    """Draw the shares of weights that mask updates drop and grow, one panel per quantity and one strip per row.

    Each strip holds the mean over finished seeds of the last update before each moment. Nothing is drawn where there
    is nothing to take a share of, such as blind growth while an update grows no weight.

    Raises:
        EastError: A file of a run cannot be read.
    """
    table = data.table
    rows = [row for row in table.rows if row.accuracy.planned]
    left_out, rows = len(rows[_MOST_ROWS:]), rows[:_MOST_ROWS]
    churns = [row_churn(data.sources, [seed.run for seed in row.accuracy.with_status("finished")]) for row in rows]
    end = max((churn["epoch"].iloc[-1] for churn in churns if churn is not None), default=1.0)
    with style.new_figure(style.FULL, max(1.6, 0.13 * len(rows) + 0.75)) as figure:
        axes = list(figure.subplots(1, len(_QUANTITIES), sharex=True, sharey=True))
        norm, nothing = PowerNorm(0.5, vmin=0, vmax=1), [math.nan] * _TIMES
        for axis, (title, share) in zip(axes, _QUANTITIES.items(), strict=True):
            axis.set_title(title)
            strips = [nothing if churn is None else _strip(churn, share, end) for churn in churns]
            _draw(axis, strips or [nothing], norm, end)
        axes[0].set_yticks(range(len(rows)), [visible(_name(row, table)) for row in rows])
        if all(churn is None for churn in churns):
            style.say_that_nothing_is_there(axes[0], "No mask updates recorded")
        bar = figure.colorbar(axes[0].images[0], ax=axes, fraction=0.025, pad=0.01, aspect=30)
        bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1])
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.outline.set_visible(False)
        bar.set_label("Share of the weights")
        style.say_what_is_left_out(figure, left_out, "row")
        return style.save(figure, f"{style.table_title(table)}: mask churn", _alt(table, rows, churns))


def _strip(churn: pd.DataFrame, share: str, end: float) -> Any:
    """The share of the last update at each of so many moments up to `end`; NaN before the first."""
    moments = (np.arange(_TIMES) + 0.5) * end / _TIMES
    places = np.searchsorted(churn["epoch"], moments, side="right") - 1
    return np.append(churn[share], math.nan)[places]


def _draw(axis: Axes, strips: Sequence[Sequence[float]], norm: PowerNorm, end: float) -> None:
    rows = len(strips)
    axis.imshow(np.asarray(strips), cmap=_SHADES, norm=norm, extent=(0, end, rows - 0.5, -0.5))
    # White between the strips: neighbouring rows are read one by one.
    axis.hlines([place + 0.5 for place in range(rows - 1)], 0, end, color=PAPER, linewidth=1.2)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axis.set_xlabel("Epoch")


def _name(row: GridResult | MethodResult, table: AggregatedGrid | AggregatedMethods) -> str:
    if isinstance(row, GridResult):
        return style.row_name(row)
    settings = {(other.model, other.dataset) for other in table.rows if isinstance(other, MethodResult)}
    return row.method if len(settings) == 1 else f"{row.method}, {network_label(row.model)}, {DATASETS[row.dataset]}"


def _alt(
    table: AggregatedGrid | AggregatedMethods,
    rows: Sequence[GridResult | MethodResult],
    churns: Sequence[pd.DataFrame | None],
) -> str:
    text = (
        f"Four panels of strips, one for each of {len(rows)} rows of {style.table_title(table)}, shaded by the "
        "share of weights that the last mask update before each epoch dropped, grew, grew without a gradient, and "
        "found to be exactly zero."
    )
    blind = [
        (share, style.row_name(row))
        for row, churn in zip(rows, churns, strict=True)
        if churn is not None and not math.isnan(share := churn["blind"].max())
    ]
    if not blind:
        return f"{text} No mask updates are recorded."
    share, name = max(blind)
    return f"{text} Blind growth is at most {100 * share:.0f} % of the weights grown ({name})."
