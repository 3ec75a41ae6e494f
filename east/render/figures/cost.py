"""Table 6 as time against memory: what was measured, and the paper's accounting beside the printed numbers."""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from east.analysis.published import PublishedCost, read_published
from east.cost.record import CostRecord
from east.render.figures import Drawing, PlanData, style
from east.render.figures.style import Look, look
from east.render.names import DATASETS, network_label
from east.render.numbers import fixed, quantity
from east.render.palette import MUTED
from east.render.templating import PUBLISHED

_HERE, _PRINTED = 5.0, 6.5


def draw(data: PlanData) -> Drawing:
    """Draw the methods of Table 6, a marker each: seconds and memory of a step, then hours and the counted memory.

    The printed rows are hollow, and have an arrow where the paper prints an upper bound of the time.
    """
    rows, plan = data.costs, data.cost_plan
    setting = f"{network_label(plan.model)} on {DATASETS[plan.dataset]}"
    printed = PUBLISHED / plan.published if plan.published else None
    published = read_published(printed, PublishedCost, data.read) if printed else []
    looks = {row.method: look(index) for index, row in enumerate(rows)}
    with style.new_figure(style.FULL, 2.6) as figure:
        measured, counted = figure.subplots(1, 2)
        _draw_measured(measured, rows, looks)
        _draw_counted(counted, rows, published, looks)
        handles = [style.point_handle(method, point) for method, point in looks.items()]
        if published:
            handles.append(style.point_handle("Paper", Look(MUTED, "-", "o"), hollow=True))
        style.legend(figure, handles, columns=7)
        return style.save(figure, f"Table 6, {setting}: time against memory", _alt(rows, setting))


def printed_hours(text: str) -> tuple[float, bool]:
    """The number in a printed time, and whether it is an upper bound: `<1` is (1, True), `~2` is (2, False)."""
    found = re.search(r"\d+(\.\d+)?", text)
    return (float(found.group()) if found else 0.0), "<" in text


def _draw_measured(axis: Axes, rows: Sequence[CostRecord], looks: dict[str, Look]) -> None:
    axis.set_title("Measured: one training step")
    axis.set_xlabel("Peak memory (MB)")
    axis.set_ylabel("Seconds")
    axis.grid(visible=True)
    known = [row for row in rows if row.seconds_per_step is not None and row.peak_memory_mb is not None]
    if not known:
        style.say_that_nothing_is_there(axis, "Nothing was timed")
        return
    for row in known:
        point = looks[row.method]
        spread = row.seconds_spread or 0.0
        seconds, memory = row.seconds_per_step or 0.0, row.peak_memory_mb or 0.0
        axis.plot([memory] * 2, [seconds - spread, seconds + spread], color=point.color)
        axis.plot([memory], [seconds], color=point.color, marker=point.marker, markersize=_HERE)
    axis.set_xlim(0, 1.08 * max(row.peak_memory_mb or 0.0 for row in known))
    axis.set_ylim(0, 1.12 * max((row.seconds_per_step or 0.0) + (row.seconds_spread or 0.0) for row in known))


def _draw_counted(
    axis: Axes, rows: Sequence[CostRecord], published: Sequence[PublishedCost], looks: dict[str, Look]
) -> None:
    axis.set_title("As the paper counts: a whole training")
    axis.set_xlabel("Est. Total (MB)")
    axis.set_ylabel("Hours")
    axis.grid(visible=True)
    axis.set_yscale("log")
    for row in rows:
        if row.hours_estimate:
            point = looks[row.method]
            place = [row.est_total_mb], [row.hours_estimate]
            axis.plot(*place, color=point.color, marker=point.marker, markersize=_HERE)
    for printed in published:
        if printed.method not in looks:
            continue
        point = looks[printed.method]
        hours, bound = printed_hours(printed.train_time)
        if not hours:
            continue
        place = [printed.est_total_mb], [hours]
        axis.plot(*place, color=point.color, marker=point.marker, markersize=_PRINTED, markerfacecolor="none")
        if bound:
            arrow = {"arrowstyle": "->", "color": point.color, "linewidth": 0.7, "shrinkA": 4, "shrinkB": 0}
            axis.annotate("", (printed.est_total_mb, hours * 0.55), (printed.est_total_mb, hours), arrowprops=arrow)
    low, high = axis.get_ylim()
    axis.set_ylim(low / 2, high * 1.5)
    axis.set_xlim(0, 1.08 * max(row.est_total_mb for row in rows) if rows else 1)
    axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda hours, _: f"{hours:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _alt(rows: Sequence[CostRecord], setting: str) -> str:
    text = f"Time against memory of the methods of Table 6, {setting}."
    for row in rows:
        parts = [f"{fixed(row.est_total_mb)} MB counted"]
        if row.seconds_per_step is not None:
            parts.append(f"{quantity(row.seconds_per_step)} s a step")
        if row.peak_memory_mb is not None:
            parts.append(f"{fixed(row.peak_memory_mb, 0)} MB measured")
        text += f" {row.method}: {', '.join(parts)}."
    return text
