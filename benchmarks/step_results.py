"""What `benchmarks.step` finds, and the tables made of it."""

import statistics

from pydantic import Field

from benchmarks.results import ABSENT, markdown, milliseconds, ratio, spread
from benchmarks.variants import VariantName
from east.config.run import Frozen

PYTORCH: tuple[VariantName, ...] = ("pytorch", "pytorch-channels-last")


class Machine(Frozen):
    """Where and with what it ran."""

    processor: str
    cores: int = Field(description="that this process may use")
    platform: str
    python: str
    torch: str
    compiler: str = Field(description="of the sparse engine's kernels")
    vector: str = Field(description="their vector level")
    commit: str | None
    load: float = Field(description="processes that ran or waited to run, mean of the minute before the start")


class Timing(Frozen):
    """Seconds of a training step of one variant."""

    variant: VariantName
    clip: bool
    density: float | None = Field(description="None where the time does not depend on it")
    seconds: tuple[float, ...] = Field(description="one a round")

    @property
    def median(self) -> float:
        """Over rounds."""
        return statistics.median(self.seconds)


class Floor(Frozen):
    """The least that a step at a density can move."""

    density: float
    nonzeros: int
    bytes_moved: int | None = Field(description="None where DyReLU is active")


class Cell(Frozen):
    """One network with one number of threads, timed in a process of its own."""

    network: str
    label: str
    threads: int
    copy_bandwidth: float = Field(description="bytes a second, read and written")
    timings: tuple[Timing, ...]
    floors: tuple[Floor, ...]

    def timing(self, variant: VariantName, *, clip: bool, density: float | None = None) -> Timing | None:
        """The timing of a variant, if it was timed."""
        wanted = (variant, clip, density)
        found = (timing for timing in self.timings if (timing.variant, timing.clip, timing.density) == wanted)
        return next(found, None)

    def fastest_pytorch(self, *, clip: bool) -> Timing | None:
        """Plain PyTorch in the layout whose median is smaller, if it was timed."""
        found = [timing for name in PYTORCH if (timing := self.timing(name, clip=clip)) is not None]
        return min(found, key=lambda timing: timing.median, default=None)


class Peak(Frozen):
    """The most memory that a variant held at once, in a process of its own."""

    network: str
    variant: VariantName
    density: float | None
    megabytes: float = Field(description="of 2^20 bytes, since before the network was built")


class Results(Frozen):
    """Everything that one run of the benchmark finds."""

    machine: Machine
    date: str
    minutes: float = Field(description="that it took")
    short: bool = Field(description="narrow networks and small images, which say nothing about time")
    image_shape: tuple[int, int, int]
    batch_size: int
    cells: tuple[Cell, ...]
    peaks: tuple[Peak, ...]


LABELS: dict[VariantName, str] = {
    "sparse": "ours, sparse",
    "dense": "ours, masked dense",
    "pytorch": "PyTorch, no masks, contiguous",
    "pytorch-channels-last": "PyTorch, no masks, channels-last",
    "peer": "weight × mask every step",
}
"""Variant -> how the tables call it."""

GB = 1e9


def render(results: Results) -> str:
    """A Markdown document of everything that was found.

    Times are medians over rounds. Ratios are medians of the quotients of each round, with the lower and the upper
    quartile in brackets.
    """
    parts = [_heading(results)]
    for cell in results.cells:
        parts.append(f"## {cell.label}, {_count(cell.threads, 'thread')}")
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
    bandwidth = f"Measured copy bandwidth: {cell.copy_bandwidth / GB:.1f} GB/s, read and written."
    return f"{markdown(header, rows)}\n\n{bandwidth}"


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
    multiple = spread([seconds / least for seconds in plain.seconds])
    return [*row, f"{floor.bytes_moved / GB:.2f} GB, {milliseconds(least)}", str(multiple)]


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
    return markdown(header, rows)


def _memory_table(results: Results) -> str:
    rows = []
    for peak in results.peaks:
        name = LABELS[peak.variant] + ("" if peak.density is None else f", density {peak.density:g}")
        label = next(cell.label for cell in results.cells if cell.network == peak.network)
        rows.append([label, name, f"{peak.megabytes:,.0f} MB"])
    return markdown(["network", "variant", "peak memory"], rows)


def _time(timing: Timing | None) -> str:
    return ABSENT if timing is None else milliseconds(timing.median)


def _ratio(over: Timing | None, under: Timing | None) -> str:
    return ABSENT if over is None or under is None else str(ratio(over.seconds, under.seconds))


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
