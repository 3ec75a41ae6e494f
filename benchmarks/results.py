"""What a run of the benchmark finds, and the statistics of it."""

import statistics

from pydantic import Field

from benchmarks.networks import VariantName
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


class Spread(Frozen):
    """A quantity over rounds."""

    median: float
    lower: float = Field(description="lower quartile")
    upper: float = Field(description="upper quartile")


def spread(values: tuple[float, ...]) -> Spread:
    """Median and quartiles, interpolated between the values."""
    if len(values) == 1:
        return Spread(median=values[0], lower=values[0], upper=values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, lower=lower, upper=upper)


def ratio(over: Timing, under: Timing) -> Spread:
    """How many times longer one variant takes than another: quotients of the same round."""
    return spread(tuple(a / b for a, b in zip(over.seconds, under.seconds, strict=True)))
