"""How `east show` prints a run: its curve, its masks over time and its summary, in 80 columns."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from east.analysis.words import schedule_text, sharing_text
from east.cli.plot import bars, curve
from east.cli.status_view import STYLES, run_line
from east.config import Run
from east.operations.run_files import RunStatus
from east.render.names import DATASETS, NETWORKS
from east.render.numbers import DASH, density_text, duration, fixed
from east.render.templating import visible
from east.training.records import EpochRecord, RunRecord, UpdateRecord

WIDTH = 80
"""Columns that suffice; of a wider terminal no more is used."""
CURVE_HEIGHT = 8
SHOWN_UPDATES = 12
_BARS = 40
_COURSES = {
    "density": "density",
    "dropped": "dropped",
    "grown": "grown",
    "blind growth": "blind_growth",
    "active zeros": "active_zeros",
    "live channels": "live_channels",
}
"""What is drawn over the mask updates, and its column."""


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
        run: As planned.
        status: How far it is.
        record: What it has left; all of it may be absent.
        ascii_only: Draw with ASCII characters.
        everything: List every mask update, and not a few of them.
        width: Columns of the terminal.
    """
    sections: list[list[RenderableType]] = [
        list(_head(run, status, record)),
        list(_curve(record.epochs, run.spec.training.epochs, min(WIDTH, max(width, 30)), ascii_only=ascii_only)),
        list(_courses(record.updates, ascii_only=ascii_only)),
        list(_updates(record.updates, None if everything else SHOWN_UPDATES)),
        list(_summary(record)),
    ]
    parts: list[RenderableType] = []
    for section in filter(None, sections):
        parts += [Text(), *section] if parts else section
    return Group(*parts)


def _head(run: Run, status: RunStatus, record: RunRecord) -> Iterator[RenderableType]:
    spec = run.spec
    yield Text.assemble((status.state, STYLES[status.state]), "  ", visible(run_line(status)))
    cycle = spec.cycle
    schedule = (
        schedule_text(cycle.pattern, cycle.multiplier, cycle.cycles, cycle.length_multiplier) if cycle else "static"
    )
    network = f"{NETWORKS[spec.model.name]} of width {spec.model.width} on {DATASETS[spec.dataset.name]}"
    density = f"density {density_text(spec.sparsity.density)}, {schedule}"
    yield Text(visible(f"{run.label}: {network}, {density}, seed {spec.seed}, recipe {run.recipe}."))
    for label, path in (("log", status.log), ("Slurm's log", status.slurm_log)):
        if path:
            yield Text(visible(f"{label}: {path}"), style="dim")
    for problem in record.problems:
        yield Text(visible(problem), style="yellow")


def _curve(epochs: Sequence[EpochRecord], end: int, width: int, *, ascii_only: bool) -> Iterator[RenderableType]:
    points = [(row.epoch, row.test_acc) for row in epochs]
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
    drawn = curve(xs, ys, end=max(end, *xs), width=width, height=CURVE_HEIGHT, ascii_only=ascii_only)
    yield from (Text(line, no_wrap=True) for line in drawn)


def _courses(updates: Sequence[UpdateRecord], *, ascii_only: bool) -> Iterator[RenderableType]:
    if not updates:
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, column in _COURSES.items():
        values = [float(getattr(row, column)) for row in updates]
        extent = f"{_short(min(values))} to {_short(max(values))}"
        table.add_row(Text(name), Text(bars(values, _BARS, ascii_only=ascii_only)), Text(extent))
    yield Text("Masks over the updates", style="bold")
    yield table


def _updates(updates: Sequence[UpdateRecord], limit: int | None) -> Iterator[RenderableType]:
    if not updates:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("epoch", "kind", "density", "non-zeros", "dropped", "grown", "blind", "zeros", "live"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=True)
    shown = _spread(len(updates), limit)
    for row in (updates[i] for i in shown):
        numbers = (row.density, row.nonzeros, row.dropped, row.grown, row.blind_growth, row.active_zeros)
        live = f"{100 * row.live_channels / row.channels:.0f} %" if row.channels else DASH
        cells = [str(row.epoch), row.kind, *map(_short, numbers), live]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    yield table
    if len(shown) < len(updates):
        yield Text(f"{len(shown)} of {len(updates)} mask updates; --all lists them.", style="dim")


def _summary(record: RunRecord) -> Iterator[RenderableType]:
    summary = record.summary
    if summary is None:
        return
    parameters = summary.parameters
    facts: list[tuple[str, object]] = [
        ("final test accuracy", _percent(summary.final_test_accuracy)),
        ("at the best validation epoch", _percent(summary.best_test_accuracy)),
        ("diverged in epoch", summary.diverged_at_epoch),
        ("after step", summary.diverged_at_step),
        ("non-zeros", _of(summary.nonzeros, summary.masked_weights)),
        ("batch-norm parameters", _count(parameters.get("batch_norm"))),
        ("DyReLU parameters", _count(parameters.get("dyrelu"))),
        ("live channels", _of(summary.liveness.get("live_channels"), summary.liveness.get("channels"))),
        ("training time", None if summary.seconds is None else _time(summary.seconds, summary.runs_per_device)),
        ("attempts", summary.attempts),
        ("peak memory", None if summary.peak_memory_mb is None else f"{fixed(summary.peak_memory_mb, 0)} MB"),
        ("device", summary.device),
        ("engine", summary.engine),
        ("reproducibility", summary.reproducibility),
        ("commit", summary.commit),
        ("code digest", summary.code_digest),
        ("versions", ", ".join(f"{name} {version}" for name, version in summary.versions.items() if version)),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, ""):
            table.add_row(Text(name), Text(visible(str(value))))
    yield Text("Summary", style="bold")
    yield table


def _spread(count: int, limit: int | None) -> Sequence[int]:
    """At most so many places among a count, the first and the last among them."""
    if limit is None or count <= limit:
        return range(count)
    return sorted({round(i * (count - 1) / (limit - 1)) for i in range(limit)})


def _short(value: float) -> str:
    """A number in a column: counts with commas, shares with three digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _time(seconds: float, runs_per_device: int | None) -> str:
    """Seconds of a training, flagged where others may have shared its device."""
    return ", ".join(filter(None, (duration(seconds), sharing_text(runs_per_device))))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{fixed(value)} %"


def _count(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _of(part: object, whole: object) -> str | None:
    if not isinstance(part, int):
        return None
    return f"{part:,} of {whole:,} ({100 * part / whole:.3g} %)" if isinstance(whole, int) and whole else f"{part:,}"
