"""The results of the benchmark as Markdown."""

from collections.abc import Sequence

from benchmarks.networks import VariantName
from benchmarks.results import Cell, Machine, Results, Spread, Timing, ratio, spread

LABELS: dict[VariantName, str] = {
    "sparse": "ours, sparse",
    "dense": "ours, masked dense",
    "pytorch": "PyTorch, no masks, contiguous",
    "pytorch-channels-last": "PyTorch, no masks, channels-last",
    "peer": "weight × mask every step",
}
"""Variant -> how the tables call it."""

ABSENT = "–"
MS_PER_SECOND = 1e3
GB = 1e9


def render(results: Results) -> str:
    """A Markdown document of everything that was found.

    Times are medians over rounds. Ratios are medians of the quotients of each round, with the lower and the upper
    quartile in brackets.
    """
    parts = [_heading(results)]
    for cell in results.cells:
        parts.append(f"## {cell.label}, {_threads(cell.threads)}")
        parts += [_sparse_table(cell), _dense_table(cell)]
    parts += ["## Peak memory", _memory_table(results)]
    return "\n\n".join(parts) + "\n"


def _heading(results: Results) -> str:
    machine: Machine = results.machine
    channels, height, width = results.image_shape
    rounds = len(results.cells[0].timings[0].seconds)
    warning = "\n\nA short run on narrow networks and small images. Its times mean nothing." if results.short else ""
    return (
        f"# Training steps of batch {results.batch_size}, images {channels} x {height} x {width}{warning}\n\n"
        f"{machine.processor}, {_count(machine.cores, 'core')}, {machine.platform}; Python {machine.python}, PyTorch "
        f"{machine.torch}; kernels by {machine.compiler} for {machine.vector}; commit {machine.commit}. "
        f"{results.date}: {_count(rounds, 'round')} in {results.minutes:.1f} minutes, load {machine.load:.1f} at the "
        "start. Times are medians over rounds, ratios medians of the quotients of each round, with quartiles in "
        "brackets."
    )


def _sparse_table(cell: Cell) -> str:
    reference = "PyTorch" if cell.fastest_pytorch(clip=False) else None
    header = ["density", "non-zeros", "sparse step", f"step / at {cell.floors[0].density:g}"]
    header += [f"{reference} / sparse"] if reference else []
    header += ["masked dense / sparse"]
    header += ["weight × mask / sparse"] if cell.timing("peer", clip=False) else []
    header += ["sparse step, clip"]
    header += [f"{reference}, clip / sparse, clip"] if reference else []
    header += ["masked dense, clip / sparse, clip", "floor", "sparse step / floor"]
    rows = [_sparse_row(cell, density) for density in sorted(floor.density for floor in cell.floors)]
    return _table(header, rows) + _bandwidth(cell)


def _sparse_row(cell: Cell, density: float) -> list[str]:
    floor = next(floor for floor in cell.floors if floor.density == density)
    row = [f"{density:g}", f"{floor.nonzeros:,}"]
    for clip in (False, True):
        sparse = cell.timing("sparse", clip=clip, density=density)
        row.append(_time(sparse))
        if not clip:
            row.append(_ratio(sparse, cell.timing("sparse", clip=False, density=cell.floors[0].density)))
        if fastest := cell.fastest_pytorch(clip=clip):
            row.append(_ratio(fastest, sparse))
        row.append(_ratio(cell.timing("dense", clip=clip), sparse))
        if not clip and (peer := cell.timing("peer", clip=False)):
            row.append(_ratio(peer, sparse))
    plain = cell.timing("sparse", clip=False, density=density)
    if floor.bytes_moved is None or plain is None:
        return [*row, ABSENT, ABSENT]
    least = floor.bytes_moved / cell.copy_bandwidth
    multiple = spread(tuple(seconds / least for seconds in plain.seconds))
    return [*row, f"{floor.bytes_moved / GB:.2f} GB, {_milliseconds(least)}", _spread(multiple)]


def _dense_table(cell: Cell) -> str:
    fastest = cell.fastest_pytorch(clip=False)
    header = ["executes every weight", "step", "step, clip"]
    header += [f"step / {LABELS[fastest.variant]}"] if fastest else []
    rows = []
    for timing in cell.timings:
        if timing.density is not None or timing.clip:
            continue
        row = [LABELS[timing.variant], _time(timing), _time(cell.timing(timing.variant, clip=True))]
        rows.append(row + ([_ratio(timing, fastest)] if fastest else []))
    return _table(header, rows)


def _memory_table(results: Results) -> str:
    rows = []
    for peak in results.peaks:
        name = LABELS[peak.variant] + ("" if peak.density is None else f", density {peak.density:g}")
        label = next(cell.label for cell in results.cells if cell.network == peak.network)
        rows.append([label, name, f"{peak.megabytes:,.0f} MB"])
    return _table(["network", "variant", "peak memory"], rows)


def _bandwidth(cell: Cell) -> str:
    return f"\n\nMeasured copy bandwidth: {cell.copy_bandwidth / GB:.1f} GB/s, read and written."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _time(timing: Timing | None) -> str:
    return ABSENT if timing is None else _milliseconds(timing.median)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * MS_PER_SECOND:,.{0 if seconds >= 0.1 else 1}f} ms"


def _ratio(over: Timing | None, under: Timing | None) -> str:
    return ABSENT if over is None or under is None else _spread(ratio(over, under))


def _spread(value: Spread) -> str:
    return f"{value.median:.3g} ({value.lower:.3g}–{value.upper:.3g})"


def _threads(count: int) -> str:
    return _count(count, "thread")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
