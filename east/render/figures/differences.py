"""The difference of every row from what is published, with its interval: a forest plot, a panel a table."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from east.analysis.aggregate import THE_PAPER
from east.analysis.compare import RowComparison, TableComparison, Verdict, sources_text, whose
from east.analysis.words import capital
from east.render.figures import Drawing, PlanData, style
from east.render.figures.style import Look
from east.render.names import table_label
from east.render.numbers import signed_or_dash
from east.render.palette import INK, MUTED, PAPER, SERIES
from east.shown import visible

_LOOKS: dict[Verdict, tuple[Look, bool]] = {
    "equivalent": (Look(SERIES[0], "-", "o"), False),
    "undecided": (Look(MUTED, "-", "o"), True),
    "different": (Look(SERIES[1], "-", "D"), False),
    "too few seeds": (Look(MUTED, "-", "x"), False),
}
"""How a verdict is drawn, and whether hollow."""
_SHIFT = Look(INK, "-", "s")
_MOST_ROWS = 60
_MEAN = "Mean difference"


def draw(data: PlanData) -> Drawing:
    """Draw our mean minus the published one for every row that can be compared, with its interval and the margin.

    Rows of the same settings stand on one line in all panels. Tables that cannot be compared are left out.
    """
    shown = [table for table in data.comparisons or () if any(row.difference is not None for row in table.rows)]
    names = _names(shown)
    left_out, names = len(names[_MOST_ROWS:]), names[:_MOST_ROWS]
    with style.new_figure(style.FULL, 0.15 * len(names) + 1.1 if shown else 1.2) as figure:
        if not shown:
            axis = figure.subplots()
            style.say_that_nothing_is_there(axis, "No row can be compared with a published one.")
            return style.save(figure, f"Differences from {THE_PAPER}", _alt(shown))
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axis, table in zip(axes, shown, strict=True):
            _draw_table(axis, table, names)
        axes[0].set_yticks(range(len(names) + 1), [visible(capital(name)) for name in names] + [_MEAN])
        axes[0].set_ylim(len(names) + 0.6, -0.6)
        figure.supxlabel(f"Difference from {visible(sources_text(shown))} (percentage points)", fontsize=7)
        style.legend(figure, _handles(shown))
        style.say_what_is_left_out(figure, left_out, "row")
        return style.save(figure, f"Differences from {sources_text(shown)}", _alt(shown))


def _names(shown: Sequence[TableComparison]) -> list[str]:
    """The settings of all rows; those of one table only stand behind the row that they follow there."""
    names: list[str] = []
    for table in shown:
        place = 0
        for row in table.rows:
            if row.difference is None:
                continue
            if row.settings not in names:
                names.insert(place, row.settings)
            place = names.index(row.settings) + 1
    return names


def _handles(shown: Sequence[TableComparison]) -> list[Artist]:
    used = {row.verdict for table in shown for row in table.rows if row.difference is not None}
    handles: list[Artist] = [
        style.point_handle(verdict.capitalize(), drawn, hollow=hollow)
        for verdict, (drawn, hollow) in _LOOKS.items()
        if verdict in used
    ]
    margins = " or ".join(dict.fromkeys(f"±{table.comparing.margin:g}" for table in shown))
    band = Patch(facecolor=MUTED, alpha=0.3, linewidth=0, label=f"Within {margins} points")
    return [*handles, style.point_handle(_MEAN, _SHIFT), band]


def _draw_table(axis: Axes, table: TableComparison, names: Sequence[str]) -> None:
    margin = table.comparing.margin
    axis.set_title(table_label(table.table) or visible(table.table))
    axis.axvspan(-margin, margin, color=MUTED, alpha=0.16, linewidth=0)
    axis.axvline(0, color=MUTED, linewidth=0.7)
    axis.set_xlim(*_extent(table.rows, margin))
    for row in table.rows:
        if row.difference is None or row.settings not in names:
            continue
        drawn, hollow = _LOOKS[row.verdict]
        ends = (row.test.low, row.test.high) if row.test else None
        _draw_difference(axis, names.index(row.settings), row.difference, ends, drawn, hollow=hollow)
    if table.shift is not None:
        ends = (table.shift.low, table.shift.high)
        _draw_difference(axis, len(names), table.shift.difference, ends, _SHIFT, hollow=False)
    axis.axhline(len(names) - 0.5, color=MUTED, linewidth=0.5)
    axis.grid(visible=False)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _draw_difference(
    axis: Axes, place: int, difference: float, ends: tuple[float, float] | None, drawn: Look, *, hollow: bool
) -> None:
    if ends is not None:
        axis.plot(ends, [place, place], color=drawn.color, linewidth=0.9)
        low, high = axis.get_xlim()
        for edge, marker, beyond in ((low, "<", ends[0] < low), (high, ">", ends[1] > high)):
            if beyond:
                axis.plot([edge], [place], color=drawn.color, marker=marker, markersize=3, clip_on=False)
    face = PAPER if hollow else drawn.color
    axis.plot([difference], [place], color=drawn.color, marker=drawn.marker, markerfacecolor=face)


def _extent(rows: Sequence[RowComparison], margin: float) -> tuple[float, float]:
    """Enough for every point and most intervals; a few of two or three wild seeds would hide all the others."""
    points = [row.difference for row in rows if row.difference is not None]
    halves = sorted((row.test.high - row.test.low) / 2 for row in rows if row.test)
    usual = halves[len(halves) * 3 // 4] if halves else 0.0
    reach = 1.08 * max(margin, max(abs(point) for point in points) + usual)
    return -reach, reach


def _alt(shown: Sequence[TableComparison]) -> str:
    if not shown:
        return "No row can be compared with a published one, so no difference is drawn."
    parts = []
    for table in shown:
        counts = Counter(row.verdict for row in table.rows if row.difference is not None)
        words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _LOOKS if counts[verdict])
        shift = f", mean difference {signed_or_dash(table.shift.difference, 2)} points" if table.shift else ""
        parts.append(f"{table_label(table.table) or table.table}: {words}{shift}.")
    return (
        f"Our mean minus {whose(sources_text(shown))} for every row, with its interval, against the margin of "
        f"equivalence. {' '.join(parts)}"
    )
