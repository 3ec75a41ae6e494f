"""Test accuracy against the epoch: a line a row with a band over seeds, diverged seeds drawn to where they end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.curves import Curve, mean_curve, read_curve
from east.analysis.sources import Sources
from east.analysis.words import axes_text, capital, counted, schedule_text
from east.render.figures import Drawing, TableData, style
from east.render.figures.style import Look, look
from east.render.names import DATASETS, network_label
from east.render.numbers import fixed
from east.render.palette import PAPER
from east.shown import visible

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


def draw(data: TableData) -> Drawing:
    """Draw test accuracy by epoch: mean over finished seeds, a band of one standard deviation, one line per row.

    Grids have a panel for each pattern and multiplier with the static row in each, tables with axes of their own one
    for each combination of values; the methods table has a panel for each network and data set. Diverged seeds are
    drawn thin, up to a cross where they end.

    Raises:
        EastError: A `metrics.csv` cannot be read.
    """
    table, sources = data.table, data.sources
    found = _panels(table, sources)
    shown = dict(list(found.items())[: style.MOST_PANELS])
    lines = [line for panel in shown.values() for line in panel]
    columns = _columns(table, len(shown))
    with style.new_figure(style.FULL, -(-len(shown) // columns) * 1.6 + 0.4) as figure:
        axes = style.panels(figure, len(shown), columns)
        for axis, (title, panel) in zip(axes, shown.items(), strict=True):
            axis.set_title(visible(title))
            for place, line in enumerate(panel):
                _draw(axis, line, place, len(panel))
        for axis in axes[-columns:]:
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for axis in axes[::columns]:
            axis.set_ylabel("Test accuracy (%)")
        if not any(line.mean or line.diverged for line in lines):
            style.say_that_nothing_is_there(axes[0], "No epochs recorded")
        _leave_out_the_warm_up(axes[0], [line.mean for line in lines if line.mean])
        handles = [style.line_handle(label, look) for label, look in {line.label: line.look for line in lines}.items()]
        if any(line.diverged for line in lines):
            handles.append(style.point_handle("Diverged", style.DIVERGED))
        style.legend(figure, handles)
        style.say_what_is_left_out(figure, len(found) - len(shown))
        return style.save(figure, f"{style.table_title(table)}: test accuracy against epoch", _alt(table, shown))


def _panels(table: AggregatedGrid | AggregatedMethods, sources: Sources) -> dict[str, list[_Line]]:
    if isinstance(table, AggregatedMethods):
        return _method_panels(table, sources)
    return _own_panels(table, sources) if table.axes else _grid_panels(table, sources)


def _own_panels(table: AggregatedGrid, sources: Sources) -> dict[str, list[_Line]]:
    """A panel for each combination of values on the table's own axes, a line for each label."""
    looks = {method: look(index) for index, method in enumerate(dict.fromkeys(row.method for row in table.rows))}
    found: dict[str, list[_Line]] = {}
    for row in table.rows:
        line = _line(row, row.method, looks[row.method], table, sources)
        found.setdefault(capital(axes_text(row.values)), []).append(line)
    return found


def _grid_panels(table: AggregatedGrid, sources: Sources) -> dict[str, list[_Line]]:
    cyclic = [row for row in table.rows if row.pattern is not None]
    static = [_line(row, row.method, style.STATIC, table, sources) for row in table.rows if row.pattern is None]
    looks = style.variants([style.variant(row) for row in cyclic])
    titles = [capital(schedule_text(row.pattern, row.multiplier, None, None)) for row in cyclic]
    found = {title: [*static] for title in titles}
    for title, row in sorted(zip(titles, cyclic, strict=True), key=lambda pair: style.variant(pair[1])):
        found[title].append(_line(row, style.variant(row), looks[style.variant(row)], table, sources))
    return found or {"": static}


def _method_panels(table: AggregatedMethods, sources: Sources) -> dict[str, list[_Line]]:
    rows = [row for row in table.rows if row.accuracy.planned]
    looks = {method: look(index) for index, method in enumerate(dict.fromkeys(row.method for row in rows))}
    found: dict[str, list[_Line]] = {}
    for row in rows:
        width = "" if row.width is None else f", width {row.width}"
        title = f"{network_label(row.model)}{width}, {DATASETS[row.dataset]}"
        found.setdefault(title, []).append(_line(row, row.method, looks[row.method], table, sources))
    return found or {"": []}


def _line(
    row: GridResult | MethodResult,
    label: str,
    look: Look,
    table: AggregatedGrid | AggregatedMethods,
    sources: Sources,
) -> _Line:
    def curves(status: str) -> list[Curve]:
        runs = [seed.run for seed in row.accuracy.seeds if seed.status == status]
        return [curve for run in runs if (curve := read_curve(sources, run)) is not None]

    mean = mean_curve(curves("finished"), table.summarising.spread)
    return _Line(label=label, look=look, mean=mean, diverged=tuple(curves("diverged")))


def _columns(table: AggregatedGrid | AggregatedMethods, count: int) -> int:
    """As many columns as each pattern has multipliers, where patterns have equally many; else three."""
    if isinstance(table, AggregatedGrid) and not table.axes:
        settings = {(row.pattern, row.multiplier) for row in table.rows if row.pattern is not None}
        counts = set(Counter(pattern for pattern, _ in settings).values())
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
        axis.plot(*end, color=color, marker=style.DIVERGED.marker, markersize=6, markeredgecolor=PAPER)


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


def _alt(table: AggregatedGrid | AggregatedMethods, shown: Mapping[str, Sequence[_Line]]) -> str:
    text = f"Test accuracy in percent against the epoch, {style.table_title(table)}, in {counted(len(shown), 'panel')}."
    ends = [
        (line.mean.values[-1], line.label if line.look is style.STATIC or not title else f"{title}, {line.label}")
        for title, panel in shown.items()
        for line in panel
        if line.mean
    ]
    if not ends:
        return f"{text} No epochs are recorded."
    best, worst = max(ends), min(ends)
    diverged = len({id(curve) for panel in shown.values() for line in panel for curve in line.diverged})
    text += f" Means over seeds end between {fixed(worst[0])} ({worst[1]}) and {fixed(best[0])} ({best[1]})."
    return f"{text} {diverged} diverged {'run is' if diverged == 1 else 'runs are'} drawn too." if diverged else text
