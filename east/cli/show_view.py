"""How `east show` prints a run: its curve, its masks over time and its summary, in 80 columns."""

import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from east.analysis.sources import RunRecord
from east.analysis.words import schedule_text, sharing_text
from east.cli.plot import bars, curve
from east.cli.status_view import STYLES, run_line
from east.config import Run
from east.operations.run_files import RunStatus
from east.render.names import DATASETS, network_label, width_label
from east.render.numbers import DASH, density_text, duration, fixed
from east.shown import visible
from east.training.records import EpochRecord, RunSummary, UpdateRecord

WIDTH = 80
"""Columns that suffice; of a wider terminal no more is used."""
SHOWN_UPDATES = 12
_COURSES = ("density", "dropped", "grown", "blind_growth", "active_zeros", "live_channels")
"""The columns that are drawn over the mask updates."""

_ORIGIN = ("device", "engine", "reproducibility", "commit", "code_digest")
"""The keys of a summary that are printed as they are."""


def run_view(
    run: Run,
    status: RunStatus,
    record: RunRecord,
    *,
    ascii_only: bool = False,
    everything: bool = False,
    width: int = WIDTH,
) -> RenderableType:
    """The whole picture of a run.

    Args:
        run: as planned.
        status: how far it is.
        record: what it has left; all of it may be absent.
        ascii_only: draw with ASCII characters.
        everything: list every mask update, not just a few of them.
        width: columns of the terminal.
    """
    sections: list[Iterable[RenderableType]] = [
        _head(run, status, record),
        _curve(record.epochs, run.spec.training.epochs, min(WIDTH, max(width, 30)), ascii_only=ascii_only),
    ]
    if record.updates:
        sections.append(_courses(record.updates, ascii_only=ascii_only))
        sections.append(_updates(record.updates, None if everything else SHOWN_UPDATES))
    if record.summary:
        sections.append(_summary(record.summary))
    parts = [part for section in sections for part in (Text(), *section)]
    return Group(*parts[1:])


def _head(run: Run, status: RunStatus, record: RunRecord) -> Iterator[RenderableType]:
    spec, cycle = run.spec, run.spec.cycle
    yield Text.assemble((status.state, STYLES[status.state]), "  ", visible(run_line(status)))
    schedule = (
        schedule_text(str(cycle.pattern), cycle.multiplier, cycle.cycles, cycle.length_multiplier)
        if cycle
        else "static"
    )
    network = f"{network_label(spec.model.name)}{width_label(spec.model.width)} on {DATASETS[spec.dataset.name]}"
    density = f"density {density_text(spec.sparsity.density)}, {schedule}"
    yield Text(visible(f"{run.label}: {network}, {density}, seed {spec.seed}, recipe {run.recipe}."))
    for label, path in (("log", status.log), ("Slurm's log", status.slurm_log)):
        if path:
            yield Text(visible(f"{label}: {path}"), style="dim")
    for problem in record.problems:
        yield Text(visible(problem), style="yellow")


def _curve(epochs: Sequence[EpochRecord], end: int, width: int, *, ascii_only: bool) -> Iterator[RenderableType]:
    points = [(row.epoch, row.test_acc) for row in epochs if math.isfinite(row.test_acc)]
    if not points:
        yield Text("No epoch is recorded.", style="dim")
        return
    best_epoch, best = max(points, key=lambda point: point[1])
    last_epoch, last = points[-1]
    yield Text.assemble(
        ("Test accuracy (%) by epoch", "bold"),
        f": {fixed(last)} after {last_epoch}, at most {fixed(best)} after {best_epoch}",
    )
    xs, ys = zip(*sorted(points), strict=True)
    drawn = curve(xs, ys, end=max(end, *xs), width=width, height=8, ascii_only=ascii_only)
    yield from (Text(line, no_wrap=True) for line in drawn)


def _courses(updates: Sequence[UpdateRecord], *, ascii_only: bool) -> Iterator[RenderableType]:
    columns = [Column(no_wrap=True) for _ in range(3)]
    table = Table(*columns, box=None, pad_edge=False, show_header=False)
    for column in _COURSES:
        values = [float(getattr(row, column)) for row in updates]
        extent = f"{_short(min(values))} to {_short(max(values))}"
        drawn = bars(values, 40, ascii_only=ascii_only)
        table.add_row(Text(column.replace("_", " ")), Text(drawn), Text(extent))
    yield Text("Masks over the updates", style="bold")
    yield table


def _updates(updates: Sequence[UpdateRecord], limit: int | None) -> Iterator[RenderableType]:
    table = Table(box=None, pad_edge=False)
    for heading in ("epoch", "kind", "density", "non-zeros", "dropped", "grown", "blind", "zeros", "live"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=True)
    count = len(updates)
    # Evenly spread, the first and the last among them.
    places = {round(i * (count - 1) / (limit - 1)) for i in range(limit)} if limit and limit < count else range(count)
    shown = [updates[i] for i in sorted(places)]
    for row in shown:
        numbers = (row.density, row.nonzeros, row.dropped, row.grown, row.blind_growth, row.active_zeros)
        live = f"{100 * row.live_channels / row.channels:.0f} %" if row.channels else DASH
        cells = [str(row.epoch), row.kind, *map(_short, numbers), live]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    yield table
    if len(shown) < len(updates):
        yield Text(f"{len(shown)} of {len(updates)} mask updates; --all lists them.", style="dim")


def _summary(summary: RunSummary) -> Iterator[RenderableType]:
    time = [] if summary.seconds is None else [duration(summary.seconds), sharing_text(summary.runs_per_device)]
    facts: list[tuple[str, object]] = [
        ("final test accuracy", _number(summary.final_test_accuracy, ".2f", " %")),
        ("at the best validation epoch", _number(summary.best_test_accuracy, ".2f", " %")),
        ("diverged in epoch", summary.diverged_at_epoch),
        ("after step", summary.diverged_at_step),
        ("non-zeros", _of(summary.nonzeros, summary.masked_weights)),
        ("batch-norm parameters", _number(summary.parameters.get("batch_norm"), ",")),
        ("DyReLU parameters", _number(summary.parameters.get("dyrelu"), ",")),
        ("live channels", _of(summary.liveness.get("live_channels"), summary.liveness.get("channels"))),
        ("training time", ", ".join(filter(None, time))),
        ("attempts", summary.attempts),
        ("peak memory", _number(summary.peak_memory_mb, ".0f", " MB")),
        *((name.replace("_", " "), getattr(summary, name)) for name in _ORIGIN),
        ("versions", ", ".join(f"{name} {version}" for name, version in summary.versions.items() if version)),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, ""):
            table.add_row(Text(name), Text(visible(str(value))))
    yield Text("Summary", style="bold")
    yield table


def _short(value: float) -> str:
    """A number in a column: counts with commas, shares with three digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _number(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}}{unit}"


def _of(part: int | None, whole: int | None) -> str | None:
    share = f" of {whole:,} ({100 * part / whole:.3g} %)" if part is not None and whole else ""
    return None if part is None else f"{part:,}{share}"
