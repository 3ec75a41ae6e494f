"""What the GPU suite finds: one record a thing found, so that a part that is cut off keeps what it has."""

import statistics
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from benchmarks.results import Spread, spread
from east.config.run import Frozen, Numerics

EngineOrAuthors = Literal["dense", "sparse", "auto", "authors"]
Stepping = Literal["eager", "captured", "compiled"]


class WayName(Frozen):
    """How a training step is executed."""

    engine: EngineOrAuthors
    stepping: Stepping
    numerics: Numerics

    def __str__(self) -> str:
        if self.engine == "authors":
            return f"the authors' way, {self.numerics}"
        return f"{self.engine}, {self.stepping}, {self.numerics}"


class Facts(Frozen):
    """Where and with what it ran."""

    kind: Literal["facts"] = "facts"
    device: str
    capability: str | None = Field(description="compute capability; None without a GPU")
    multiprocessors: int | None
    memory_gb: float | None = Field(description="of the GPU, in 10^9 bytes")
    cache_mb: float | None = Field(description="its second-level cache, in 2^20 bytes")
    versions: dict[str, str | None] = Field(description="of Python, PyTorch, Triton, CUDA and cuDNN")
    platform: str
    processor: str
    cores: int = Field(description="of the CPU that this process may use")
    commit: str | None
    held_gb: float | None = Field(description="of the GPU's memory by others at the start, in 10^9 bytes")
    load: float = Field(description="processes that ran or waited to run, mean of the minute before the start")


class Rate(Frozen):
    """A rate of the device, measured again and again."""

    kind: Literal["rate"] = "rate"
    what: Literal["copy", "bf16", "tf32", "fp32"]
    unit: Literal["B/s", "FLOP/s"]
    size: str = Field(description="what was copied or multiplied")
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Over the repetitions."""
        return statistics.median(self.values)


class TestRun(Frozen):
    """The tests of one file, run on the device."""

    __test__ = False  # it is no test case of pytest's

    kind: Literal["tests"] = "tests"
    file: str
    passed: int
    failed: int
    skipped: int
    failures: tuple[str, ...] = Field(description="names of tests that failed, and the first line of why")


class Check(Frozen):
    """A comparison with what is right; an error above the bound is a fault."""

    kind: Literal["check"] = "check"
    what: str
    network: str
    way: WayName | None
    error: float | None = Field(description="relative; None where it is no finite number")
    bound: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound."""
        return self.error is not None and self.error <= self.bound


class Quiet(Frozen):
    """Steps during which the host must not wait for the device and nothing may be compiled or captured again."""

    kind: Literal["quiet"] = "quiet"
    network: str
    way: WayName
    steps: int
    changed: str = Field(description="what was changed between these steps")
    trouble: str | None = Field(description="the error of a synchronisation or recompilation; None for none")
    recorded: int = Field(description="steps recorded anew meanwhile")
    compiled: int = Field(description="graphs that PyTorch compiled anew meanwhile")

    @property
    def passed(self) -> bool:
        """Whether nothing of the kind happened."""
        return self.trouble is None and self.recorded == 0 and self.compiled == 0


class StepTimes(Frozen):
    """Seconds of a training step of one way, timed in turn with others of its group."""

    kind: Literal["steps"] = "steps"
    network: str
    method: str
    batch: int
    way: WayName
    density: float
    executed_by: str = Field(description="the engine that executes it, which `auto` chooses")
    seconds: tuple[float, ...] = Field(description="mean of some steps in a row, one a round")
    steps_a_round: int
    megabytes: float | None = Field(description="most GPU memory held while it was prepared, in 2^20 bytes")

    @property
    def median(self) -> float:
        """Over rounds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> Spread:
        """Over rounds."""
        return spread(self.seconds)


class Work(Frozen):
    """What a training step of a network must compute and move at the least; counted, not measured."""

    kind: Literal["work"] = "work"
    network: str
    batch: int
    density: float
    flops: float = Field(description="of forward and backward passes, all weights executed")
    dense_numbers: float = Field(description="numbers moved by the dense step with all pointwise work fused")
    least_numbers: float = Field(description="numbers that a step on the non-zeros alone must move")
    sparse_bytes: dict[Numerics, float] = Field(description="bytes that the sparse engine's kernels move, as counted")


class EpochTimes(Frozen):
    """Seconds of a whole epoch of training, its batches included, and of what a run does beside."""

    kind: Literal["epoch"] = "epoch"
    network: str
    way: WayName
    batch: int
    images: int = Field(description="of an epoch")
    steps: int = Field(description="of an epoch; the last, smaller batch counts")
    training: tuple[float, ...] = Field(description="one a round")
    evaluation: tuple[float, ...] = Field(description="of all validation and test images; empty for the authors' way")
    update: tuple[float, ...] = Field(description="a step with dense gradients, the change of the masks, a step")
    saving: tuple[float, ...] = Field(description="of a checkpoint")

    @property
    def median(self) -> float:
        """Seconds of training over rounds."""
        return statistics.median(self.training)


class Resumed(Frozen):
    """What a training that was killed and resumed promises, item by item."""

    kind: Literal["resumed"] = "resumed"
    promise: str
    kept: bool
    note: str = ""


class Throughput(Frozen):
    """Training steps of several processes on one GPU at once."""

    kind: Literal["throughput"] = "throughput"
    network: str
    way: WayName
    mps: bool
    processes: int
    steps_per_second: tuple[float, ...] = Field(description="of each process, over the same seconds")

    @property
    def total(self) -> float:
        """Steps a second of all processes together."""
        return sum(self.steps_per_second)


class Hours(Frozen):
    """Hours of the runs of Tables 2-5 that follow from seconds of an epoch: computed, not measured."""

    kind: Literal["hours"] = "hours"
    way: WayName
    runs: int
    hours: float = Field(description="one run after the other")
    processes: int = Field(description="the number of processes on one GPU that did the most steps a second")
    mps: bool
    hours_at_best: float = Field(description="with that many processes")
    note: str


class Note(Frozen):
    """Something that could not be done, and why."""

    kind: Literal["note"] = "note"
    about: str
    text: str


Finding = Annotated[
    Facts | Rate | TestRun | Check | Quiet | StepTimes | Work | EpochTimes | Resumed | Throughput | Hours | Note,
    Field(discriminator="kind"),
]

Found = TypeVar("Found", bound=Frozen)

State = Literal["done", "cut off", "failed", "left out"]


class PartRecord(Frozen):
    """One part of the suite and what it found."""

    name: str
    title: str
    state: State
    seconds: float
    limit: float = Field(description="seconds that it was given")
    error: str | None = Field(description="why it failed")
    findings: tuple[Finding, ...]


class Results(Frozen):
    """Everything that one run of the suite finds."""

    date: str
    minutes: float = Field(description="that it took so far")
    budget: float = Field(description="minutes that it was given")
    dry: bool = Field(description="a rehearsal at tiny shapes on the CPU, which measures nothing")
    parts: tuple[PartRecord, ...]

    def all(self, kind: type[Found]) -> list[Found]:
        """All findings of a kind, in the order in which they were found."""
        return [finding for part in self.parts for finding in part.findings if isinstance(finding, kind)]

    @property
    def device(self) -> str:
        """The device that it ran on, or `unknown` where the first part did not get so far."""
        return next((facts.device for facts in self.all(Facts)), "unknown")
