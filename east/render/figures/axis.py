"""Test accuracy along an axis of a table's own, with published points beside ours: a line for each label."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from east.analysis.aggregate import AggregatedGrid, GridResult
from east.analysis.words import axes_text, axis_text, capital
from east.config.conditions import as_number
from east.render.figures import Drawing, TableData, style
from east.render.figures.style import Look, look
from east.render.names import axis_label
from east.render.numbers import fixed
from east.render.palette import MUTED, PAPER
from east.shown import visible

_WIDE = 10
"""Largest divided by smallest number, from which on an axis is logarithmic."""


@dataclass(frozen=True)
class _Series:
    """The rows of one line, and where each stands."""

    label: str
    look: Look
    rows: Sequence[tuple[float, GridResult]]


def draw(data: TableData) -> Drawing:
    """Draw accuracy against the first axis that has numbers; against the words of the first where none has."""
    table = style.grid_of(data)
    axis, is_numeric = _chosen(table)
    places = _places(table, axis, is_numeric)
    found = _series(table, axis, places)
    with style.new_figure(style.FULL, 2.7) as figure:
        axes = figure.subplots()
        for number, series in enumerate(found):
            # Neighbours side by side where they stand over words.
            aside = 0.0 if is_numeric else (number - (len(found) - 1) / 2) * 0.3 / max(len(found), 1)
            _draw(axes, series, aside, joined=is_numeric)
        if is_numeric:
            _scale(axes, sorted(places.values()))
        else:
            axes.set_xticks(list(places.values()), [visible(name) for name in places])
            axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_xlabel(visible(axis_label(axis)))
        axes.set_ylabel("Test accuracy (%)")
        if not any(row.accuracy.mean is not None or row.published for row in table.rows):
            style.say_that_nothing_is_there(axes, "No run has finished")
        handles = [style.line_handle(series.label, series.look) for series in found]
        if any(row.published for row in table.rows):
            name = "Paper" if table.source is None else table.source.name
            handles.append(style.point_handle(name, Look(MUTED, "-", "o"), hollow=True))
        style.legend(figure, handles)
        title = f"{style.table_title(table)}: test accuracy against {axis_label(axis).lower()}"
        return style.save(figure, title, _alt(table, axis, found))


def _chosen(table: AggregatedGrid) -> tuple[str, bool]:
    """The axis, and whether it has numbers: two at least, at which something can be compared."""
    for axis in table.axes:
        values = {row.values[axis] for row in table.rows}
        if len(values) > 1 and all(as_number(value) is not None for value in values):
            return axis, True
    return table.axes[0], False


def _places(table: AggregatedGrid, axis: str, is_numeric: bool) -> dict[str, float]:
    """Where each value of the axis stands, by its text."""
    texts = dict.fromkeys(axis_text(row.values[axis]) or "none" for row in table.rows)
    return {text: float(text) if is_numeric else place for place, text in enumerate(texts)}


def _series(table: AggregatedGrid, axis: str, places: dict[str, float]) -> list[_Series]:
    """Rows that differ on the axis alone, as a line each."""
    found: dict[str, list[tuple[float, GridResult]]] = {}
    for row in table.rows:
        others = {name: value for name, value in row.values.items() if name != axis}
        label = ", ".join(filter(None, [row.method, axes_text(others)]))
        found.setdefault(label, []).append((places[axis_text(row.values[axis]) or "none"], row))
    return [
        _Series(label, look(number), sorted(rows, key=lambda placed: placed[0]))
        for number, (label, rows) in enumerate(found.items())
    ]


def _draw(axes: Axes, series: _Series, aside: float, *, joined: bool) -> None:
    """Ours filled and joined, published points hollow."""
    known = [(place + aside, row.accuracy.mean) for place, row in series.rows if row.accuracy.mean is not None]
    line = series.look.dashes if joined else ""
    color, marker = series.look.color, series.look.marker
    axes.plot([x for x, _ in known], [mean for _, mean in known], color=color, linestyle=line, marker=marker)
    for place, row in series.rows:
        x = place + aside
        if row.accuracy.mean is not None and row.accuracy.std is not None:
            ends = [row.accuracy.mean - row.accuracy.std, row.accuracy.mean + row.accuracy.std]
            axes.plot([x, x], ends, color=color, linewidth=1.1)
        if row.published is not None:
            axes.plot([x], [row.published.mean], color=color, marker=marker, markerfacecolor=PAPER, linestyle="")


def _scale(axes: Axes, numbers: Sequence[float]) -> None:
    """Ticks at the numbers themselves; a logarithmic axis where they are far apart."""
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= _WIDE:
        axes.set_xscale("log")
    axes.set_xticks(numbers)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: axis_text(float(value))))
    axes.xaxis.set_minor_locator(NullLocator())


def _alt(table: AggregatedGrid, axis: str, found: Sequence[_Series]) -> str:
    text = f"Test accuracy in percent against {axis_label(axis).lower()}, {style.table_title(table)}."
    parts = []
    for series in found:
        known = [row for _, row in series.rows if row.accuracy.mean is not None]
        if known:
            ends = [known[0], known[-1]] if len(known) > 1 else known
            texts = [f"{fixed(row.accuracy.mean)} at {axis_text(row.values[axis]) or 'none'}" for row in ends]
            parts.append(f"{capital(series.label)}: {' to '.join(texts)}.")
    return " ".join([text, *parts]) if parts else f"{text} No run has finished."
