"""Seconds of a training step: ways of one network in turn, round by round, in one process."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.gpu_suite.conditions import RIGL, Conditions, with_density
from benchmarks.gpu_suite.findings import EngineOrAuthors, Finding, Note, Stepping, StepTimes, WayName
from benchmarks.gpu_suite.floors import count_work
from benchmarks.gpu_suite.ways import AUTHORS_FP32, AUTHORS_TF32, Training, make_training, random_batch, way
from east.config.run import Numerics, RunSpec
from east.cost.clock import seconds_of, synchronize

ROUNDS, DRY_ROUNDS = 9, 1
WINDOW = 0.06
"""Seconds for which a way takes steps in a round, about; the mean of these steps is one time."""

MOST_STEPS = 30
WARM_UPS = 2
"""Steps before the clock starts: the first is eager, the second is recorded where there is something to record."""

MANNERS: tuple[Stepping, ...] = ("eager", "captured")
ENGINES: tuple[EngineOrAuthors, ...] = ("dense", "sparse", "auto")
NUMERICS: tuple[Numerics, ...] = ("tf32", "bf16")
OURS = tuple(way(engine, stepping, numerics) for engine in ENGINES for stepping in MANNERS for numerics in NUMERICS)
CAPTURED = tuple(name for name in OURS if name.stepping == "captured")
COMPILED = tuple(way("dense", "compiled", numerics) for numerics in NUMERICS[::-1])
AUTHORS = (AUTHORS_FP32, AUTHORS_TF32)

CYCLE_DENSITIES = (0.0015, 0.005, 0.015)
"""What the density cycles of Tables 2-5 reach: 3, 10 and 30 times the target."""


@dataclass(frozen=True)
class Group:
    """Ways that are timed in turn.

    Args:
        network: how the tables call it.
        method: of Table 6, and what is particular about it.
        spec: the run.
        batch: images a step.
        ways: what is compared.
        faded: whether DyReLU is a plain ReLU already.
    """

    network: str
    method: str
    spec: RunSpec
    batch: int
    ways: Sequence[WayName]
    faded: bool = False


def measure(conditions: Conditions) -> Iterator[Finding]:
    """Time what is not compiled, the most important first: full batches, small ones, cycle densities, methods."""
    return _measure(conditions, list(groups(conditions)))


def measure_compiled(conditions: Conditions) -> Iterator[Finding]:
    """Time the compiled steps, beside captured ones; compiling takes long, so it comes by itself."""
    return _measure(conditions, list(compiled_groups(conditions)))


def groups(conditions: Conditions) -> Iterator[Group]:
    """What is timed, in order of importance."""
    full, last = conditions.batches
    plain = {label: conditions.plain(model) for label, model in conditions.networks.items()}
    for label, spec in plain.items():
        yield Group(label, RIGL, spec, full, conditions.ways(AUTHORS + OURS))
    for label, spec in plain.items():
        yield Group(label, RIGL, spec, last, conditions.ways(CAPTURED))
    for label, spec in plain.items():
        for density in () if conditions.dry else CYCLE_DENSITIES:
            yield Group(label, RIGL, with_density(spec, density), full, CAPTURED)
    for label, model in conditions.networks.items():
        for method, spec in conditions.methods(model).items():
            if method == RIGL or (conditions.dry and method != "EAST Combined"):
                continue
            yield Group(label, method, spec, full, conditions.ways(CAPTURED if conditions.dry else AUTHORS + OURS))
            if spec.phasing is not None:
                yield Group(label, f"{method}, faded", spec, full, conditions.ways(CAPTURED), faded=True)


def compiled_groups(conditions: Conditions) -> Iterator[Group]:
    """What is compiled, in order of importance."""
    full, last = conditions.batches
    plain = {label: conditions.plain(model) for label, model in conditions.networks.items()}
    for compiled in conditions.ways(COMPILED):
        captured = way("dense", "captured", compiled.numerics)
        for label, spec in plain.items():
            yield Group(label, RIGL, spec, full, (AUTHORS_TF32, captured, compiled))
    for compiled in conditions.ways(COMPILED):
        for label, spec in plain.items():
            yield Group(label, RIGL, spec, last, (compiled,))


def _measure(conditions: Conditions, wanted: Sequence[Group]) -> Iterator[Finding]:
    for number, group in enumerate(wanted):
        if conditions.left() <= 0:
            yield Note(
                about="steps", text=f"{len(wanted) - number} of {len(wanted)} groups were not timed: time was up"
            )
            return
        yield from time_group(group, conditions)
        if group.method == RIGL:
            yield count_work(group.network, group.spec, group.batch)


def time_group(group: Group, conditions: Conditions) -> Iterator[Finding]:
    """Make all ways of a group, then time them in turn; what cannot be made is noted and left out."""
    timed: list[_Timed] = []
    for name in group.ways:
        if conditions.left() <= 0:
            yield Note(about=f"{group.network}, {group.method}: {name}", text="not timed: time was up")
            continue
        try:
            timed.append(_Timed(name, group, conditions))
        except Exception as error:
            yield Note(about=f"{group.network}, {group.method}, batch {group.batch}: {name}", text=first_line(error))
    for _ in range(DRY_ROUNDS if conditions.dry else ROUNDS):
        for one in timed:
            one.round()
        if conditions.left() <= 0:
            break
    for one in timed:
        yield one.found()
    timed.clear()
    release(conditions.where)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"


def release(device: torch.device) -> None:
    """Give memory back that nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class _Timed:
    """A way with its times."""

    def __init__(self, name: WayName, group: Group, conditions: Conditions) -> None:
        self._group = group
        self._device = conditions.where
        before = self._held()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._training: Training = make_training(
            name, group.spec, self._device, batch_size=group.batch, faded=group.faded
        )
        self._batch = random_batch(group.spec, group.batch, self._device)
        self._number = 0
        self._seconds: list[float] = []
        self._training.resume()
        self._take(WARM_UPS)
        self._training.require_as_named()
        synchronize(self._device)
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None
        self._megabytes = None if peak is None else (peak - before) / 2**20
        self._steps = 1
        if not conditions.dry:
            self._take(2)
            one = seconds_of(lambda: self._take(1), self._device)
            self._steps = max(1, min(MOST_STEPS, round(WINDOW / one)))

    def round(self) -> None:
        """Time some steps in a row, after one that is not timed: the caches were another way's."""
        self._training.resume()
        self._take(1)
        self._seconds.append(seconds_of(lambda: self._take(self._steps), self._device) / self._steps)

    def found(self) -> StepTimes:
        """What was timed."""
        group = self._group
        return StepTimes(
            network=group.network,
            method=group.method,
            batch=group.batch,
            way=self._training.way,
            density=group.spec.sparsity.density,
            executed_by=self._training.executed_by,
            seconds=tuple(self._seconds),
            steps_a_round=self._steps,
            megabytes=self._megabytes,
        )

    def _take(self, steps: int) -> None:
        for _ in range(steps):
            self._number += 1
            self._training.train(*self._batch, self._number, self._group.spec.training.lr)

    def _held(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0
