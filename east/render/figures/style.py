"""How every figure looks and is written: marks that differ without colour, names of rows, panels, PNG and SVG."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.words import capital, counted, schedule_text
from east.render.figures import Drawing, TableData
from east.render.names import DATASETS, network_label, table_label
from east.render.palette import INK, MUTED, PAPER, SERIES
from east.render.templating import REPORT_FOLDER
from east.shown import visible

FULL = 6.75
"""Width of a paper's text in inches."""
MOST_PANELS = 36
"""Of one figure, so that it stays one page and takes seconds."""

_MARKERS = "os^Dvp"
_DASHES: Sequence[Any] = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.4, 1.4, 1.4)))


@dataclass(frozen=True)
class Look:
    """How a series is drawn: colour, dashes and marker all differ, so that series differ in grey print too."""

    color: str
    dashes: Any
    marker: str


STATIC = Look(INK, "-", "")
DIVERGED = Look(MUTED, "-", "X")
"""The end of a run that diverged, in the colour of its row."""


def look(index: int) -> Look:
    """The look of the series with this place in the legend, counted from 0; 24 of them differ."""
    dashes = _DASHES[(index + index // len(SERIES)) % len(_DASHES)]
    return Look(SERIES[index % len(SERIES)], dashes, _MARKERS[index % len(_MARKERS)])


def variant(row: GridResult) -> str:
    """What tells the rows of a panel apart, such as `2 cycles, length 2×`."""
    text = cycles_text(row.cycles, row.length_multiplier)
    return text if row.printed else f"{row.method}, {text}"


def cycles_text(cycles: int | None, length_multiplier: float | None) -> str:
    """How many cycles a schedule has, and how they grow."""
    text = counted(cycles or 0, "cycle")
    return text if length_multiplier is None else f"{text}, length {length_multiplier:g}×"


def variants(labels: Sequence[str]) -> dict[str, Look]:
    """The look of each different label, in the order of their names: fewer cycles look the same in every table."""
    return {label: look(index) for index, label in enumerate(sorted(set(labels)))}


def row_name(row: GridResult | MethodResult) -> str:
    """A row of any table on one line, such as `Cosine, 10×, 2 cycles, 2×`, `RigL, density 0.001`, or the method."""
    if isinstance(row, GridResult) and row.values:
        return row.settings
    if isinstance(row, MethodResult) or row.pattern is None:
        return row.method
    name = schedule_text(row.pattern, row.multiplier, row.cycles, row.length_multiplier)
    return capital(name) if row.printed else f"{row.method}, {name}"


def grid_of(data: TableData) -> AggregatedGrid:
    """The table of a figure that the methods table does not have."""
    if not isinstance(data.table, AggregatedGrid):
        raise TypeError(f"{data.table.id} has no such figure.")
    return data.table


def table_title(table: AggregatedGrid | AggregatedMethods) -> str:
    """A table and what it is about, such as `Table 2, ResNet-34 on CIFAR-10`."""
    if isinstance(table, AggregatedMethods):
        return "The methods"
    return f"{table_label(table.id) or table.id}, {network_label(table.model)} on {DATASETS[table.dataset]}"


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this many inches in the style of all; matplotlib's settings are as before when the block ends."""
    with mpl.rc_context():
        # The user's own matplotlibrc does not show in the figures.
        mpl.rcdefaults()
        mpl.rcParams.update(_style())
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Axes for so many panels with common scales; labels stand at the lowest panel of each column."""
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)
    return axes[:count]


def line_handle(label: str, line: Look) -> Line2D:
    """An entry of a legend for a line."""
    return Line2D(
        [], [], color=line.color, linestyle=line.dashes, marker=line.marker, markersize=3, label=visible(label)
    )


def point_handle(label: str, point: Look, *, hollow: bool = False) -> Line2D:
    """An entry of a legend for points."""
    handle = Line2D([], [], color=point.color, marker=point.marker, linestyle="", label=visible(label))
    if hollow:
        handle.set_markerfacecolor("none")
    return handle


def legend(figure: Figure, handles: Sequence[Artist], columns: int = 5) -> None:
    """Put a legend above all panels, in rows of about equal length that fit into the figure."""
    if handles:
        # Points need less room than pieces of a line.
        lines = any(isinstance(handle, Line2D) and handle.get_linestyle() != "None" for handle in handles)
        fewest = -(-len(handles) // columns)
        for rows in range(fewest, len(handles) + 1):
            found = figure.legend(
                handles=list(handles),
                loc="outside upper left",
                ncols=-(-len(handles) // rows),
                handlelength=2.8 if lines else 1.2,
            )
            if found.get_window_extent().width <= figure.bbox.width or rows == len(handles):
                break
            found.remove()


def say_what_is_left_out(figure: Figure, number: int, what: str = "panel") -> None:
    """Say under a figure that it does not show everything."""
    if number:
        words = f"{what} is" if number == 1 else f"{what}s are"
        figure.supxlabel(f"{number} more {words} left out.", color=MUTED, fontsize=7)


def say_that_nothing_is_there(axis: Axes, words: str) -> None:
    """Write into an empty panel why it is empty, in place of its axes."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", color=MUTED)


def save(figure: Figure, title: str, alt: str) -> Drawing:
    """A figure in both formats; the same data give the same files, byte for byte."""
    alt, title = visible(alt), visible(title)
    # One layout serves both formats, and each canvas draws once: `Figure.savefig` would lay out and draw twice.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    about = {"Title": title, "Description": alt}
    png, svg = io.BytesIO(), io.BytesIO()
    # Only the pixels have a background: on a page, the page's own shows through. They come first, because SVG sets
    # the resolution.
    figure.set_facecolor(PAPER)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(png, metadata={**about, "Software": None})
    figure.set_facecolor("none")
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(svg, metadata={**about, "Date": None, "Creator": None, "Type": None, "Format": None})
    return Drawing(png.getvalue(), svg.getvalue(), alt)


@cache
def _style() -> mpl.RcParams:
    return mpl.rc_params_from_file(REPORT_FOLDER / "figures.mplstyle", use_default_template=False)
