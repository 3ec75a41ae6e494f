"""Test accuracy against the epoch: a line a row with a band over seeds, diverged seeds drawn to where they end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.curves import Curve, mean_curve, read_curve
from east.render.figures import Drawing, TableData
from east.render.figures.style import (
    DIVERGED,
    FULL,
    MOST_PANELS,
    STATIC,
    Look,
    legend,
    line_handle,
    look,
    new_figure,
    panels,
    point_handle,
    save,
    say_that_nothing_is_there,
    say_what_is_left_out,
    setting,
    setting_title,
    table_title,
    variant,
    variants,
)
from east.render.names import DATASETS, NETWORKS
from east.render.numbers import fixed
from east.render.palette import PAPER
from east.render.templating import visible

_MARKS = 5
"""Markers on a line, so that lines differ in grey too."""
_WARM_UP = 0.1
"""Share of the training whose accuracies may lie below the axis, so that the rest is drawn large."""


@dataclass(frozen=True)
class _Line:
    label: str
    look: Look
    mean: Curve | None
    diverged: tuple[Curve, ...]


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: tuple[_Line, ...]


def draw(data: TableData, stem: Path) -> Drawing:
    """Draw test accuracy by epoch: mean over finished seeds, a band of one standard deviation, one line per row.

    Grids have a panel for each pattern and multiplier with the static row in each; the methods table has a panel
    for each network and data set. Diverged seeds are drawn thin, up to a cross where they end.

    Args:
        data: A table, and its runs, whose `metrics.csv` are read.
        stem: Folder and name without an ending.

    Raises:
        EastError: A `metrics.csv` cannot be read.
    """
    table, runs_dir = data.table, data.runs_dir
    found = _grid_panels(table, runs_dir) if isinstance(table, AggregatedGrid) else _method_panels(table, runs_dir)
    left_out, found = len(found[MOST_PANELS:]), found[:MOST_PANELS]
    columns = _columns(table, len(found))
    with new_figure(FULL, -(-len(found) // columns) * 1.6 + 0.4) as figure:
        axes = panels(figure, len(found), columns)
        for axis, panel in zip(axes, found, strict=True):
            axis.set_title(visible(panel.title))
            for place, line in enumerate(panel.lines):
                _draw(axis, line, place, len(panel.lines))
        for axis in axes[-columns:]:
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for axis in axes[::columns]:
            axis.set_ylabel("Test accuracy (%)")
        if not any(line.mean or line.diverged for panel in found for line in panel.lines):
            say_that_nothing_is_there(axes[0], "No epochs recorded")
        _leave_out_the_warm_up(axes[0], [line.mean for panel in found for line in panel.lines if line.mean])
        looks = {line.label: line.look for panel in found for line in panel.lines}
        handles = [line_handle(label, look) for label, look in looks.items()]
        if any(line.diverged for panel in found for line in panel.lines):
            handles.append(point_handle("Diverged", DIVERGED))
        legend(figure, handles)
        say_what_is_left_out(figure, left_out)
        return save(figure, stem, f"{table_title(table)}: test accuracy against epoch", _alt(table, found))


def _grid_panels(table: AggregatedGrid, runs_dir: Path) -> list[_Panel]:
    cyclic = [row for row in table.rows if row.pattern is not None]
    static = tuple(_line(row, row.method, STATIC, table, runs_dir) for row in table.rows if row.pattern is None)
    looks = variants([variant(row) for row in cyclic])
    found = []
    for shared in dict.fromkeys(setting(row) for row in cyclic):
        rows = sorted((row for row in cyclic if setting(row) == shared), key=variant)
        lines = (_line(row, variant(row), looks[variant(row)], table, runs_dir) for row in rows)
        found.append(_Panel(title=setting_title(shared), lines=(*static, *lines)))
    return found or [_Panel(title="", lines=static)]


def _method_panels(table: AggregatedMethods, runs_dir: Path) -> list[_Panel]:
    rows = [row for row in table.rows if row.accuracy.planned]
    looks = {method: look(index) for index, method in enumerate(dict.fromkeys(row.method for row in rows))}
    found = []
    for model, width, dataset in dict.fromkeys((row.model, row.width, row.dataset) for row in rows):
        here = [row for row in rows if (row.model, row.width, row.dataset) == (model, width, dataset)]
        lines = tuple(_line(row, row.method, looks[row.method], table, runs_dir) for row in here)
        found.append(_Panel(title=f"{NETWORKS[model]}, width {width}, {DATASETS[dataset]}", lines=lines))
    return found or [_Panel(title="", lines=())]


def _line(
    row: GridResult | MethodResult,
    label: str,
    look: Look,
    table: AggregatedGrid | AggregatedMethods,
    runs_dir: Path,
) -> _Line:
    def curves(status: str) -> list[Curve]:
        paths = [runs_dir / seed.run / "metrics.csv" for seed in row.accuracy.seeds if seed.status == status]
        return [curve for path in paths if (curve := read_curve(path)) is not None]

    mean = mean_curve(curves("finished"), table.summarising.spread)
    return _Line(label=label, look=look, mean=mean, diverged=tuple(curves("diverged")))


def _columns(table: AggregatedGrid | AggregatedMethods, count: int) -> int:
    """As many columns as each pattern has multipliers, where patterns have equally many; else three."""
    if isinstance(table, AggregatedGrid):
        by_pattern: dict[str | None, set[float | None]] = {}
        for row in table.rows:
            if row.pattern is not None:
                by_pattern.setdefault(row.pattern, set()).add(row.multiplier)
        counts = {len(multipliers) for multipliers in by_pattern.values()}
        if len(counts) == 1 and max(counts) <= 4:
            return counts.pop()
    return min(3, count)


def _draw(axis: Axes, line: _Line, place: int, lines: int) -> None:
    color = line.look.color
    if line.mean is not None:
        step = max(1, len(line.mean.epochs) // _MARKS)
        first = (place * step) // max(1, lines)
        axis.plot(
            line.mean.epochs,
            line.mean.values,
            color=color,
            linewidth=0.9,
            linestyle=line.look.dashes,
            marker=line.look.marker,
            markevery=(first, step),
        )
        if line.mean.low is not None and line.mean.high is not None:
            axis.fill_between(line.mean.epochs, line.mean.low, line.mean.high, color=color, alpha=0.18, linewidth=0)
    for curve in line.diverged:
        axis.plot(curve.epochs, curve.values, color=color, linewidth=0.5)
        end = curve.epochs[-1:], curve.values[-1:]
        axis.plot(*end, color=color, marker=DIVERGED.marker, markersize=6, markeredgecolor=PAPER)


def _leave_out_the_warm_up(axis: Axes, means: Sequence[Curve]) -> None:
    """Start the axis of accuracies below all that is reached after the first tenth of the training."""
    after = [
        value
        for curve in means
        for epoch, value in zip(curve.epochs, curve.low or curve.values, strict=True)
        if epoch > _WARM_UP * curve.epochs[-1]
    ]
    top = max((value for curve in means for value in curve.high or curve.values), default=None)
    if after and top is not None and top > min(after):
        room = 0.06 * (top - min(after))
        axis.set_ylim(min(after) - room, top + room)


def _alt(table: AggregatedGrid | AggregatedMethods, found: Sequence[_Panel]) -> str:
    means = [(panel, line) for panel in found for line in panel.lines if line.mean]
    number = f"{len(found)} panel{'' if len(found) == 1 else 's'}"
    text = f"Test accuracy in percent against the epoch, {table_title(table)}, in {number}."
    if not means:
        return f"{text} No epochs are recorded."
    ends = [(line.mean.values[-1], _name(panel, line)) for panel, line in means if line.mean]
    best, worst = max(ends), min(ends)
    diverged = len({id(curve) for panel in found for line in panel.lines for curve in line.diverged})
    text += f" Means over seeds end between {fixed(worst[0])} ({worst[1]}) and {fixed(best[0])} ({best[1]})."
    return f"{text} {diverged} diverged {'run is' if diverged == 1 else 'runs are'} drawn too." if diverged else text


def _name(panel: _Panel, line: _Line) -> str:
    return line.label if line.look is STATIC or not panel.title else f"{panel.title}, {line.label}"
