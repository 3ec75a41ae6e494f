"""Test accuracy against the density multiplier and the number of cycles, with the paper's points beside ours."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from east.analysis.aggregate import AggregatedGrid, GridResult
from east.render.figures import Drawing, TableData, style
from east.render.figures.style import Look
from east.render.numbers import fixed
from east.render.palette import INK, MUTED, PAPER

_PUBLISHED = (0, (4, 2))
_MOST_MULTIPLIERS = 24


def draw(data: TableData) -> Drawing:
    """Draw accuracy against the multiplier, one panel per pattern, a marker for each number and growth of cycles."""
    table = style.grid_of(data)
    cyclic = [row for row in table.rows if row.pattern is not None and row.multiplier is not None]
    patterns = list(dict.fromkeys(row.pattern for row in cyclic)) or [None]
    multipliers = sorted({row.multiplier for row in cyclic if row.multiplier is not None})
    looks = style.variants([style.variant(row) for row in cyclic])
    with style.new_figure(style.FULL, 2.5) as figure:
        axes = style.panels(figure, len(patterns), len(patterns))
        for axis, pattern in zip(axes, patterns, strict=True):
            axis.set_title(pattern.capitalize() if pattern else "")
            _draw_static(axis, table.static)
            for position, multiplier in enumerate(multipliers):
                rows = [row for row in cyclic if (row.pattern, row.multiplier) == (pattern, multiplier)]
                step = min(0.27, 0.8 / max(len(rows), 1))
                for place, row in enumerate(rows):
                    center = position + (place - (len(rows) - 1) / 2) * step
                    _draw_point(axis, row, center, step / 5, looks[style.variant(row)])
            axis.set_xlim(-0.6, max(len(multipliers), 1) - 0.4)
            ticks = range(0, len(multipliers), -(-len(multipliers) // _MOST_MULTIPLIERS) or 1)
            axis.set_xticks(list(ticks), [f"{multipliers[tick]:g}×" for tick in ticks])
            axis.set_xlabel("Density multiplier")
        axes[0].set_ylabel("Test accuracy (%)")
        if not any(row.accuracy.mean is not None or row.published for row in table.rows):
            style.say_that_nothing_is_there(axes[0], "No run has finished")
        style.legend(figure, _handles(table, looks), columns=6)
        return style.save(figure, f"{style.table_title(table)}: test accuracy against multiplier", _alt(table, cyclic))


def _handles(table: AggregatedGrid, looks: dict[str, Look]) -> list[Line2D]:
    handles = [style.point_handle(label, point) for label, point in looks.items()]
    if table.static is not None:
        handles.append(Line2D([], [], color=INK, label="Static"))
    if any(row.published for row in table.rows):
        handles.append(style.point_handle("Paper", Look(MUTED, "-", "o"), hollow=True))
    if table.static is not None and table.static.published:
        handles.append(Line2D([], [], color=MUTED, linestyle=_PUBLISHED, label="Paper, static"))
    return handles


def _draw_static(axis: Axes, static: GridResult | None) -> None:
    if static is None:
        return
    mean, std = static.accuracy.mean, static.accuracy.std
    if mean is not None:
        axis.axhline(mean, color=style.STATIC.color, linewidth=1)
        if std is not None:
            axis.axhspan(mean - std, mean + std, color=style.STATIC.color, alpha=0.1, linewidth=0)
    if static.published is not None:
        axis.axhline(static.published.mean, color=MUTED, linestyle=_PUBLISHED)


def _draw_point(axis: Axes, row: GridResult, center: float, offset: float, point: Look) -> None:
    """Ours, and the paper's hollow beside it."""
    for x, value, hollow in ((center - offset, row.accuracy, False), (center + offset, row.published, True)):
        if value is None or value.mean is None:
            continue
        if value.std is not None:
            ends = [value.mean - value.std, value.mean + value.std]
            axis.plot([x, x], ends, color=point.color, linewidth=0.7 if hollow else 1.1)
        face = PAPER if hollow else point.color
        axis.plot([x], [value.mean], color=point.color, marker=point.marker, markersize=4.2, markerfacecolor=face)


def _alt(table: AggregatedGrid, cyclic: Sequence[GridResult]) -> str:
    title = style.table_title(table)
    text = f"Test accuracy in percent against the density multiplier, {title}, for each number of cycles."
    known = [(row.accuracy.mean, style.row_name(row)) for row in cyclic if row.accuracy.mean is not None]
    if not known:
        return f"{text} No cyclic row has finished."
    (best, best_row), (worst, worst_row) = max(known), min(known)
    text += f" The cyclic rows lie between {fixed(worst)} ({worst_row}) and {fixed(best)} ({best_row})"
    static = table.static.accuracy.mean if table.static else None
    text += f"; the static row is at {fixed(static)}." if static is not None else "."
    differences = [abs(row.difference) for row in table.rows if row.difference is not None]
    if differences:
        text += f" The paper's points differ from ours by {fixed(max(differences))} points at most."
    return text
