"""Layer by layer: the density before, during and after training, and the channels that the weights reach."""

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from east.analysis.aggregate import AggregatedGrid
from east.analysis.layers import LayerMask, read_layers, runs_to_show
from east.analysis.sources import Sources
from east.config.choices import bound, is_plugins, read_choice
from east.render.figures import Drawing, TableData, style
from east.render.figures.style import Look
from east.render.numbers import density_text
from east.render.palette import GRID, PAPER, SERIES
from east.shown import visible
from east.sparse.kinds import distribution

_BEFORE = Look(SERIES[4], "-", "s")
_PEAK = Look(SERIES[2], (0, (1.4, 1.2)), "")
_AFTER = Look(SERIES[0], "", "o")
_PARTS = {"conv1": "stem", "classifier": "fc"}


_Panel = tuple[str, Sequence[LayerMask]]


def draw(data: TableData) -> Drawing:
    """Draw the density of every masked layer, and the share of its output channels that have any weight.

    Raises:
        EastError: A file of a run cannot be read.
    """
    table = style.grid_of(data)
    layers = {run: _layers(data.sources, run) for run in runs_to_show(table)}
    panels = [
        (f"{style.row_name(row)} (seed {seed.seed})", layers[seed.run])
        for row in table.rows
        for seed in row.accuracy.seeds
        if layers.get(seed.run)
    ]
    columns = max(1, len(panels))
    with style.new_figure(style.FULL, 3.4 if panels else 1.6) as figure:
        if panels:
            # All rows of a table have one network, so they share the axis of layers.
            axes = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
            for place, panel in enumerate(panels):
                axes[0][place].set_title(visible(panel[0]))
                _draw_densities(axes[0][place], panel[1])
                _draw_channels(axes[1][place], panel[1])
            axes[0][0].set_ylabel("Density")
            axes[1][0].set_ylabel("Output channels\nwith a weight")
            before = style.line_handle("Before training (random masks)", _BEFORE)
            before.set_markerfacecolor(PAPER)
            after = style.line_handle("After training", _AFTER)
            style.legend(figure, [before, style.line_handle("At the highest density", _PEAK), after])
        else:
            style.say_that_nothing_is_there(figure.subplots(), "No weights on disk")
        return style.save(figure, f"{style.table_title(table)}: density of each layer", _alt(table, panels))


def _layers(sources: Sources, run: str) -> tuple[LayerMask, ...]:
    """The masked layers of a run; the rule that drew its first masks is the run's."""
    summary = sources.summary(run)
    written = summary.run.get("sparsity", {}).get("distribution", "erk") if summary else "erk"
    chosen = read_choice(distribution, written)
    if is_plugins(chosen):
        return ()  # nobody but a training executes it
    return read_layers(sources, run, bound(distribution, chosen)[1])


def _draw_densities(axis: Axes, layers: Sequence[LayerMask]) -> None:
    places = range(len(layers))
    axis.set_yscale("log")
    if any(layer.peak != layer.start for layer in layers):
        peaks = [layer.peak / layer.weights for layer in layers]
        axis.plot(places, peaks, color=_PEAK.color, linestyle=_PEAK.dashes)
    _draw(axis, [layer.start / layer.weights for layer in layers], [layer.end / layer.weights for layer in layers])
    axis.yaxis.set_major_locator(LogLocator(10))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: density_text(value)))
    axis.yaxis.set_minor_locator(NullLocator())
    _mark_parts(axis, layers)


def _draw_channels(axis: Axes, layers: Sequence[LayerMask]) -> None:
    before = [layer.connected_start / layer.channels for layer in layers]
    _draw(axis, before, [layer.connected_end / layer.channels for layer in layers])
    axis.set_ylim(0, 1.05)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _mark_parts(axis, layers)
    _name_parts(axis, layers)


def _draw(axis: Axes, before: Sequence[float], after: Sequence[float]) -> None:
    places = range(len(before))
    axis.plot(
        places,
        before,
        color=_BEFORE.color,
        linestyle=_BEFORE.dashes,
        linewidth=0.8,
        marker=_BEFORE.marker,
        markersize=4.2,
        markerfacecolor=PAPER,
    )
    axis.plot(places, after, color=_AFTER.color, marker=_AFTER.marker, markersize=2.2, linestyle="")


def _mark_parts(axis: Axes, layers: Sequence[LayerMask]) -> None:
    """Draw a line where each part of the network begins."""
    for begin, _, _ in _parts(layers)[1:]:
        axis.axvline(begin - 0.5, color=GRID, linewidth=0.6, zorder=0)
    axis.tick_params(axis="x", length=0, pad=4)


def _name_parts(axis: Axes, layers: Sequence[LayerMask]) -> None:
    """Name the parts of the network under the axis."""
    parts = _parts(layers)
    axis.set_xlim(-1.2, len(layers) + 0.2)
    axis.set_xticks([(begin + end - 1) / 2 for begin, end, _ in parts], [name for *_, name in parts])
    # The first and the last part have one layer each: less room than their names need.
    labels = axis.get_xticklabels()
    labels[0].set_horizontalalignment("right")
    labels[-1].set_horizontalalignment("left")


def _parts(layers: Sequence[LayerMask]) -> list[tuple[int, int, str]]:
    """Where each part of the network begins and ends among its layers, and its name."""
    parts: list[tuple[int, int, str]] = []
    for name, group in groupby(layers, key=lambda layer: _part(layer.name)):
        begin = parts[-1][1] if parts else 0
        parts.append((begin, begin + len(list(group)), name))
    return parts


def _part(name: str) -> str:
    first, _, rest = name.partition(".")
    if first == "stages":
        return f"stage {int(rest.partition('.')[0]) + 1}" if rest[:1].isdigit() else first
    return visible(_PARTS.get(first, first))


def _alt(table: AggregatedGrid, panels: Sequence[_Panel]) -> str:
    about = style.table_title(table)
    text = f"{about}: density of each layer before and after training, and output channels with a weight."
    if not panels:
        return f"{text} No weights are on disk."
    for title, layers in panels:
        densest = max(layers, key=lambda layer: layer.end / layer.weights)
        sparsest = min(layers, key=lambda layer: layer.end / layer.weights)
        channels = sum(layer.channels for layer in layers)
        before = sum(layer.connected_start for layer in layers) / channels
        after = sum(layer.connected_end for layer in layers) / channels
        text += (
            f" {title}: after training the densities go from {sparsest.end / sparsest.weights:.2g} to "
            f"{densest.end / densest.weights:.2g}, and {100 * after:.0f} % of all output channels have a weight, "
            f"where random masks give {100 * before:.0f} %."
        )
    return text
