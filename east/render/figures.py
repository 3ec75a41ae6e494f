"""Figures: accuracy by epoch, density schedules, and accuracy by multiplier, each as PNG and SVG."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, GridResult, MethodResult
from east.analysis.curves import Curve, mean_curve, read_curve
from east.files import write_atomically
from east.render.names import DATASETS, NETWORKS
from east.render.numbers import density_text
from east.render.palette import GRID, INK, MUTED, SERIES
from east.render.templating import visible

_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "east",
    "svg.fonttype": "path",
}
_WIDTH = 7.2
_MARKERS = "os^Dvp"
_DASHES: Sequence[Any] = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.4, 1.4, 1.4)))


@dataclass(frozen=True)
class Series:
    """A density schedule to be drawn."""

    label: str
    epochs: Sequence[float]
    densities: Sequence[float]


@dataclass
class _Line:
    label: str
    color: str
    dashes: Any
    mean: Curve | None
    diverged: list[Curve] = field(default_factory=list)


@dataclass
class _Panel:
    title: str
    lines: list[_Line]


def accuracy_curves(
    aggregated: AggregatedGrid | AggregatedMethods, runs_dir: Path, out_stem: Path
) -> tuple[Path, Path]:
    """Draw test accuracy by epoch: mean over finished seeds, a band of one standard deviation, a line a row.

    Grids have a panel for each pattern and multiplier with the static row in each; the methods table has a panel
    for each network and data set. Diverged seeds are drawn thin, up to a cross where they end.

    Args:
        aggregated: What `aggregate` returned.
        runs_dir: The folder with the runs, whose `metrics.csv` are read.
        out_stem: Folder and name without an ending.

    Returns:
        The PNG and the SVG file.
    """
    panels = (
        _grid_panels(aggregated, runs_dir)
        if isinstance(aggregated, AggregatedGrid)
        else _method_panels(aggregated, runs_dir)
    )
    columns = _columns(aggregated, len(panels))
    with _figure(panel_rows=-(-len(panels) // columns), panel_height=1.85) as figure:
        axes = _axes(figure, len(panels), columns)
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_title(visible(panel.title))
            for line in panel.lines:
                _draw_line(axis, line)
        for axis in axes[-columns:]:
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in axes[::columns]:
            axis.set_ylabel("Test accuracy (%)")
        if not any(line.mean or line.diverged for panel in panels for line in panel.lines):
            axes[0].text(0.5, 0.5, "No epochs recorded", transform=axes[0].transAxes, ha="center", color=MUTED)
        legend = {line.label: line for panel in panels for line in panel.lines}
        _legend(figure, [_handle(line.label, line.color, line.dashes) for line in legend.values()])
        return _save(figure, out_stem)


def density_schedules(series: Sequence[Series], out_stem: Path) -> tuple[Path, Path]:
    """Draw density by epoch on a logarithmic axis, a line a schedule, at most three lines a panel.

    Args:
        series: The schedules, in the order of the legend.
        out_stem: Folder and name without an ending.

    Returns:
        The PNG and the SVG file.
    """
    per_panel = 3
    panels = [series[start : start + per_panel] for start in range(0, len(series), per_panel)] or [[]]
    columns = min(3, len(panels))
    with _figure(panel_rows=-(-len(panels) // columns), panel_height=1.9) as figure:
        axes = _axes(figure, len(panels), columns)
        for axis, panel in zip(axes, panels, strict=True):
            for index, schedule in enumerate(panel):
                axis.plot(
                    schedule.epochs,
                    schedule.densities,
                    color=SERIES[index],
                    linestyle=_DASHES[index],
                    label=visible(schedule.label),
                )
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: density_text(value))
            axis.yaxis.set_minor_formatter(lambda value, _: "")
            if panel:
                axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=2.2)
        for axis in axes[-columns:]:
            axis.set_xlabel("Epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in axes[::columns]:
            axis.set_ylabel("Density")
        return _save(figure, out_stem)


def accuracy_by_multiplier(aggregated: AggregatedGrid, out_stem: Path) -> tuple[Path, Path]:
    """Draw accuracy against the density multiplier, a panel a pattern, with the paper's points beside ours.

    Args:
        aggregated: One of Tables 2-5.
        out_stem: Folder and name without an ending.

    Returns:
        The PNG and the SVG file.
    """
    cyclic = [row for row in aggregated.rows if row.pattern is not None and row.multiplier is not None]
    patterns = list(dict.fromkeys(row.pattern for row in cyclic)) or [None]
    multipliers = sorted({row.multiplier for row in cyclic if row.multiplier is not None})
    variants = _variants(cyclic)
    markers = {label: _MARKERS[index % len(_MARKERS)] for index, label in enumerate(variants)}
    with _figure(panel_rows=1, panel_height=2.5) as figure:
        axes = _axes(figure, len(patterns), len(patterns))
        for axis, pattern in zip(axes, patterns, strict=True):
            axis.set_title(pattern.capitalize() if pattern else "No cyclic rows")
            _draw_static(axis, aggregated.static)
            for position, multiplier in enumerate(multipliers):
                rows = [row for row in cyclic if (row.pattern, row.multiplier) == (pattern, multiplier)]
                step = min(0.26, 0.8 / max(len(rows), 1))
                for place, row in enumerate(rows):
                    center = position + (place - (len(rows) - 1) / 2) * step
                    _draw_point(axis, row, center, step / 5, variants[_variant(row)], markers[_variant(row)])
            axis.set_xticks(range(len(multipliers)), [f"{multiplier:g}×" for multiplier in multipliers])
            axis.set_xlim(-0.6, max(len(multipliers), 1) - 0.4)
            axis.set_xlabel("Density multiplier")
        axes[0].set_ylabel("Test accuracy (%)")
        handles = [
            Line2D([], [], color=color, marker=markers[label], markersize=4, linestyle="", label=label)
            for label, color in variants.items()
        ]
        if aggregated.static is not None:
            handles.append(_handle("Static", INK, "-"))
        if any(row.published for row in aggregated.rows):
            hollow: dict[str, Any] = {"marker": "o", "markersize": 4, "markerfacecolor": "none", "linestyle": ""}
            handles.append(Line2D([], [], color=MUTED, label="Paper (hollow, dashed)", **hollow))
        _legend(figure, handles)
        return _save(figure, out_stem)


def _grid_panels(table: AggregatedGrid, runs_dir: Path) -> list[_Panel]:
    cyclic = [row for row in table.rows if row.pattern is not None]
    static = [_line(row, row.method, INK, "-", table, runs_dir) for row in table.rows if row.pattern is None]
    variants = _variants(cyclic)
    dashes = {label: _DASHES[index % len(_DASHES)] for index, label in enumerate(variants)}
    settings = list(dict.fromkeys((row.pattern, row.multiplier) for row in cyclic))
    panels = []
    for pattern, multiplier in settings:
        lines = [
            _line(row, _variant(row), variants[_variant(row)], dashes[_variant(row)], table, runs_dir)
            for row in cyclic
            if (row.pattern, row.multiplier) == (pattern, multiplier)
        ]
        suffix = "" if multiplier is None else f", {multiplier:g}×"
        panels.append(_Panel(title=f"{(pattern or '').capitalize()}{suffix}", lines=[*static, *lines]))
    return panels or [_Panel(title="", lines=static)]


def _method_panels(table: AggregatedMethods, runs_dir: Path) -> list[_Panel]:
    rows = [row for row in table.rows if row.accuracy.planned]
    methods = list(dict.fromkeys(row.method for row in rows))
    settings = list(dict.fromkeys((row.model, row.width, row.dataset) for row in rows))
    panels = []
    for model, width, dataset in settings:
        lines = []
        for row in rows:
            if (row.model, row.width, row.dataset) == (model, width, dataset):
                index = methods.index(row.method)
                color, dashes = SERIES[index % len(SERIES)], _DASHES[index // len(SERIES) % len(_DASHES)]
                lines.append(_line(row, row.method, color, dashes, table, runs_dir))
        panels.append(_Panel(title=f"{NETWORKS[model]}, width {width}, {DATASETS[dataset]}", lines=lines))
    return panels or [_Panel(title="", lines=[])]


def _line(
    row: GridResult | MethodResult,
    label: str,
    color: str,
    dashes: Any,
    table: AggregatedGrid | AggregatedMethods,
    runs_dir: Path,
) -> _Line:
    def curves(status: str) -> list[Curve]:
        paths = [runs_dir / seed.run / "metrics.csv" for seed in row.accuracy.seeds if seed.status == status]
        return [curve for path in paths if (curve := read_curve(path)) is not None]

    mean = mean_curve(curves("finished"), table.summarising.spread)
    return _Line(label=label, color=color, dashes=dashes, mean=mean, diverged=curves("diverged"))


def _variant(row: GridResult) -> str:
    cycles = f"{row.cycles} cycle{'' if row.cycles == 1 else 's'}"
    return cycles if row.length_multiplier is None else f"{cycles}, length {row.length_multiplier:g}×"


def _variants(rows: Sequence[GridResult]) -> dict[str, str]:
    labels = dict.fromkeys(_variant(row) for row in rows)
    return {label: SERIES[index % len(SERIES)] for index, label in enumerate(labels)}


def _columns(aggregated: AggregatedGrid | AggregatedMethods, panels: int) -> int:
    if isinstance(aggregated, AggregatedMethods):
        return min(3, panels)
    by_pattern: dict[str | None, set[float | None]] = {}
    for row in aggregated.rows:
        if row.pattern is not None:
            by_pattern.setdefault(row.pattern, set()).add(row.multiplier)
    counts = {len(multipliers) for multipliers in by_pattern.values()}
    return counts.pop() if len(counts) == 1 and max(counts, default=4) <= 4 else min(3, panels)


def _draw_line(axis: Axes, line: _Line) -> None:
    if line.mean is not None:
        axis.plot(line.mean.epochs, line.mean.values, color=line.color, linestyle=line.dashes)
        if line.mean.low is not None and line.mean.high is not None:
            axis.fill_between(line.mean.epochs, line.mean.low, line.mean.high, color=line.color, alpha=0.16, lw=0)
    for curve in line.diverged:
        axis.plot(curve.epochs, curve.values, color=line.color, linewidth=0.6)
        axis.plot(curve.epochs[-1:], curve.values[-1:], color=line.color, marker="x", markersize=4)


def _draw_static(axis: Axes, static: GridResult | None) -> None:
    if static is None:
        return
    mean, std = static.accuracy.mean, static.accuracy.std
    if mean is not None:
        axis.axhline(mean, color=INK, linewidth=1)
        if std is not None:
            axis.axhspan(mean - std, mean + std, color=INK, alpha=0.1, lw=0)
    if static.published is not None:
        axis.axhline(static.published.mean, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))


def _draw_point(axis: Axes, row: GridResult, center: float, offset: float, color: str, marker: str) -> None:
    style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4, "linestyle": "", "elinewidth": 1}
    if row.accuracy.mean is not None:
        axis.errorbar(center - offset, row.accuracy.mean, yerr=row.accuracy.std, **style)
    if row.published is not None:
        style |= {"markerfacecolor": "none", "markeredgewidth": 0.8, "elinewidth": 0.6, "alpha": 0.75}
        axis.errorbar(center + offset, row.published.mean, yerr=row.published.std, **style)


@contextmanager
def _figure(panel_rows: int, panel_height: float) -> Iterator[Figure]:
    with mpl.rc_context():
        # The user's own matplotlibrc does not show in the figures.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, panel_rows * panel_height + 0.35), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _axes(figure: Figure, count: int, columns: int) -> list[Axes]:
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)
    return axes[:count]


def _handle(label: str, color: str, dashes: Any) -> Line2D:
    return Line2D([], [], color=color, linestyle=dashes, label=label)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    for handle in handles:
        handle.set_label(visible(str(handle.get_label())))
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside upper left",
            ncols=len(handles) if len(handles) <= 5 else -(-len(handles) // 2),
            handlelength=2.2,
            columnspacing=1.6,
        )


def _save(figure: Figure, out_stem: Path) -> tuple[Path, Path]:
    png, svg = (out_stem.with_name(f"{out_stem.name}.{ending}") for ending in ("png", "svg"))
    for path, metadata in ((png, {"Software": None}), (svg, {"Date": None, "Creator": None})):
        stream = io.BytesIO()
        figure.savefig(stream, format=path.suffix[1:], metadata=metadata, transparent=path == svg)
        write_atomically(path, stream.getvalue())
    return png, svg
