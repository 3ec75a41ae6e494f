"""Density and drop fraction against the epoch, for every schedule of a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from east.render.figures import Drawing, PlanData, style
from east.render.figures.style import Look
from east.render.numbers import density_text
from east.render.palette import INK
from east.render.schedules import DrawnSchedule
from east.shown import visible
from east.sparse.schedule import Schedule

POINTS = 400
"""Of a line that a schedule is drawn with."""

_TITLE = "Density and drop fraction against epoch"
_APART = 1.7
"""Ratio of densities whose labels do not touch."""


@dataclass(frozen=True)
class Line:
    """A quantity against the epoch."""

    label: str
    epochs: Sequence[float]
    values: Sequence[float]


def draw(data: PlanData) -> Drawing:
    """Draw densities on logarithmic axes, one panel per pattern and multiplier, and below them the drop fraction."""
    density, drop_fractions = _lines(data.schedules)
    shown = dict(list(density.items())[: style.MOST_PANELS])
    every = [line for lines in shown.values() for line in lines]
    columns = min(3, max(1, len(shown)))
    rows = -(-len(shown) // columns)
    looks = style.variants([line.label for line in every])
    with style.new_figure(style.FULL, (rows + 1) * 1.35 + 0.4) as figure:
        axes: list[Axes] = []
        if not shown:
            style.say_that_nothing_is_there(figure.subplots(), "No schedules")
            return style.save(figure, _TITLE, _alt(shown, drop_fractions))
        grid = figure.add_gridspec(rows + 1, columns)
        for place, (title, lines) in enumerate(shown.items()):
            shared = axes[0] if axes else None
            axis = figure.add_subplot(grid[divmod(place, columns)], sharex=shared, sharey=shared)
            axes.append(axis)
            axis.set_title(visible(title))
            _draw_density(axis, lines, looks, first=place % columns == 0)
        _label_densities(axes[0], every)
        _draw_drop_fractions(figure.add_subplot(grid[rows, :], sharex=axes[0]), drop_fractions)
        style.legend(
            figure, [style.line_handle(label, Look(line.color, line.dashes, "")) for label, line in looks.items()]
        )
        style.say_what_is_left_out(figure, len(density) - len(shown))
        return style.save(figure, _TITLE, _alt(shown, drop_fractions))


def _lines(drawn: Sequence[DrawnSchedule]) -> tuple[dict[str, list[Line]], list[Line]]:
    """The densities of some schedules, panel by panel, and each different course of the drop fraction once."""
    panels: dict[str, list[Line]] = {}
    drop_fractions: dict[str, Line] = {}
    for one in drawn:
        # With so many steps an epoch, every point stands at a whole step.
        schedule = Schedule.of(one.run, POINTS)
        cycle, density, sparsity = schedule.cycle, schedule.cyclic_density, schedule.sparsity
        if cycle is None or density is None:
            continue
        epochs = [schedule.epochs * point / POINTS for point in range(POINTS + 1)]
        label = style.cycles_text(cycle.cycles, cycle.length_multiplier if cycle.cycles > 1 else None)
        panels.setdefault(one.panel, []).append(Line(label, epochs, [density(epoch) for epoch in epochs]))
        course = f"{schedule.epochs} epochs, {sparsity.drop_fraction:g} to {sparsity.drop_fraction_end:g}"
        steps = range(0, schedule.total_steps + 1, schedule.epochs)
        drop_fractions[course] = Line(course, epochs, [schedule.drop_fraction(step) for step in steps])
    return panels, list(drop_fractions.values())


def _draw_density(axis: Axes, lines: Sequence[Line], looks: dict[str, Look], *, first: bool) -> None:
    axis.set_yscale("log")
    for line in lines:
        drawn = looks[line.label]
        axis.plot(line.epochs, line.values, color=drawn.color, linestyle=drawn.dashes)
    axis.tick_params(labelleft=first, labelbottom=True)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if first:
        axis.set_ylabel("Density")


def _label_densities(axis: Axes, lines: Sequence[Line]) -> None:
    """Name the densities that schedules rest at, then those they rise to, as far as their labels do not touch."""
    ticks: list[float] = []
    for extreme in (min, max):
        for value in sorted({extreme(line.values) for line in lines}):
            if all(max(value, tick) / min(value, tick) > _APART for tick in ticks):
                ticks.append(value)
    axis.yaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: density_text(float(f"{value:.3g}"))))
    axis.yaxis.set_minor_locator(FixedLocator([]))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_drop_fractions(axis: Axes, lines: Sequence[Line]) -> None:
    axis.set_title("Share of a layer's weights that one update exchanges at most")
    looks = style.variants([line.label for line in lines])
    for line in lines:
        drawn = looks[line.label]
        color = INK if len(lines) == 1 else drawn.color
        axis.plot(line.epochs, line.values, color=color, linestyle=drawn.dashes, label=visible(line.label))
    axis.set_ylabel("Drop fraction")
    axis.set_xlabel("Epoch")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if len(lines) > 1:
        axis.legend(loc="upper right")


def _alt(shown: Mapping[str, Sequence[Line]], drop_fractions: Sequence[Line]) -> str:
    every = [line for lines in shown.values() for line in lines]
    text = f"Scheduled density on a logarithmic axis against the epoch: {len(every)} schedules in {len(shown)} panels."
    values = [value for line in every for value in line.values]
    if values:
        text += f" Densities lie between {density_text(min(values))} and {density_text(float(f'{max(values):.3g}'))}."
    ends = {(line.values[0], line.values[-1]) for line in drop_fractions}
    for start, end in sorted(ends):
        text += f" The drop fraction falls from {start:g} to {end:g} over the training."
    return text
