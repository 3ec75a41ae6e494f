"""Everything about a run that follows from time alone: density, drop fraction, learning rate, DyReLU's beta.

`Schedule` is the one place that turns a run into numbers of time; `east.sparse.timetable` says when masks change.
Neither needs PyTorch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

from east.config.choices import Choice, bound
from east.config.run import CycleSpec, PhasingSpec, RunSpec, SparsitySpec, TrainingSpec
from east.errors import EastError
from east.plugins import blamed
from east.registry import Entry
from east.sparse.exact import cos_pi
from east.sparse.kinds import cycle_pattern, density_schedule, learning_rate
from east.sparse.moment import Moment
from east.sparse.rates import dropped_rate

ROUNDING = 1e-9
"""What a pattern may be off by where it should be 0."""

SHOWN_CYCLES = 4
"""Lengths of cycles that are spelt out where there are many."""


@dataclass(frozen=True)
class CyclicDensity:
    """The cyclic density schedule of Section C: n cycles back to back from the start, then the target density.

    Args:
        target: the density that each cycle starts and ends at, in (0, 1].
        cycle: the cycles.

    Raises:
        EastError: the peak density would exceed 1.
    """

    target: float
    cycle: CycleSpec

    def __post_init__(self) -> None:
        if self.target * self.cycle.multiplier > 1:
            raise EastError(
                f"density {self.target:g} times multiplier {self.cycle.multiplier:g} is a peak density of "
                f"{self.target * self.cycle.multiplier:g}, which is not in (0, 1]."
            )

    @cached_property
    def _pattern(self) -> tuple[Entry, Callable[..., Any]]:
        """The pattern and its entry.

        Raises:
            EastError: it does not begin and end at height 0.
        """
        entry, pattern = bound(cycle_pattern, self.cycle.pattern)
        for position in (0.0, 1.0):
            height = _number(entry, pattern, f"at {position:g} of a cycle", position)
            if not abs(height) <= ROUNDING:
                raise _out_of_range(entry, height, f"at {position:g} of a cycle")
        return entry, pattern

    @cached_property
    def lengths(self) -> tuple[float, ...]:
        """Epochs of each cycle."""
        return cycle_lengths(self.cycle.cycles, self.cycle.cycle_length, self.cycle.length_multiplier)

    @property
    def end(self) -> float:
        """Epochs from the start of training to the end of the last cycle."""
        return math.fsum(self.lengths)

    def __call__(self, epoch: float) -> float:
        """The scheduled density after `epoch` epochs (a float, 0 at the start of training); before that, the target."""
        start = 0.0
        for length in self.lengths:
            if epoch < start + length:
                height = self._height(max(0.0, (epoch - start) / length))
                return self.target * (1 + (self.cycle.multiplier - 1) * height)
            start += length
        return self.target

    def _height(self, position: float) -> float:
        entry, pattern = self._pattern
        height: float = _number(entry, pattern, f"at {position:g} of a cycle", position)
        if not -ROUNDING <= height <= 1 + ROUNDING:
            raise _out_of_range(entry, height, f"at {position:g} of a cycle")
        return height


def _number(entry: Entry, function: Callable[..., Any], when: str, *arguments: Any) -> float:
    """The number that an entry gives.

    Raises:
        EastError: it gives none; with its file and line.
    """
    with blamed(entry, when):
        return float(function(*arguments))


def _out_of_range(entry: Entry, value: float, when: str) -> EastError:
    return EastError(f"{entry.place}: {entry.title} must give {entry.kind.gives}, and gave {value:g} {when}.")


def cycle_lengths(cycles: int, cycle_length: float, length_multiplier: float) -> tuple[float, ...]:
    """Epochs of each cycle: cycle_length * length_multiplier^i, each rounded once.

    Length and multiplier are read as the decimal numbers that they print as.
    """
    first, factor = Fraction(str(cycle_length)), Fraction(str(length_multiplier))
    return tuple(_nearest(first * factor**i) for i in range(cycles))


def _nearest(number: Fraction) -> float:
    """A number as a float; infinite where floats end."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def fit_cycle_length(
    epochs: int, cycles: int, cycle_length: float, length_multiplier: float, *, rescale: bool
) -> float:
    """The length in epochs of the first cycle, such that all cycles fit the training.

    With `rescale`, cycles that do not fit are shortened in proportion, to end with the training.

    Raises:
        EastError: they do not fit and `rescale` is off; the sentence names the numbers.
    """
    lengths = cycle_lengths(cycles, cycle_length, length_multiplier)
    if math.fsum(lengths) <= epochs:
        return cycle_length
    rescaled = cycle_length * epochs / math.fsum(lengths)
    if rescale and rescaled > 0:
        return rescaled
    shown = [f"{length:g}" for length in lengths]
    if len(shown) > SHOWN_CYCLES:
        shown[SHOWN_CYCLES - 1 : -1] = ["..."]
    raise EastError(
        f"{cycles} cycles of {' + '.join(shown)} = {math.fsum(lengths):g} epochs do not fit a training of {epochs} "
        "epochs. Use fewer or shorter cycles, or set 'fit: rescale' in this row."
    )


def drop_fraction(step: int, total_steps: int, start: float, end: float) -> float:
    """Share of a tensor's non-zeros that an update drops: a cosine from `start` to `end` over the whole training.

    f(t) = end + (start - end) (1 + cos(πt/T)) / 2, with 0.5 and 0.005 in the paper's code.

    Args:
        step: optimizer steps made, from 0 to `total_steps`.
        total_steps: optimizer steps T of the whole training.
        start: value at step 0.
        end: value at step T.
    """
    return end + (start - end) * (1 + cos_pi(Fraction(step, total_steps))) / 2


def phasing_bounds(epochs: int) -> tuple[float, float]:
    """First and last epoch of DyReLU's fade for a training of `epochs` epochs, as in the authors' code.

    With M = epochs // 2 the fade starts at M / 2 (which need not be whole) and ends at M - 1: (62.5, 124) for 250.
    """
    half = epochs // 2
    return half / 2, float(half - 1)


def phasing_beta(epoch: int, start: float, end: float) -> float:
    """Weight β of the dynamic coefficients against those of ReLU: 1 before the fade, 0 from its end on, linear between.

    Args:
        epoch: the epoch about to be trained, counted from 1.
        start: epoch at which the fade starts.
        end: epoch from which on the unit is a plain ReLU.
    """
    if epoch >= end:
        return 0.0
    if epoch < start:
        return 1.0
    return 1 - (epoch - start) / (end - start)


@dataclass(frozen=True)
class Schedule:
    """What a run prescribes at each moment of its training, from nothing but its spec.

    Steps count optimizer steps that are done, epochs count from 1.
    """

    sparsity: SparsitySpec
    training: TrainingSpec
    steps_per_epoch: int
    cycle: CycleSpec | None = None
    phasing: PhasingSpec | None = None
    density_schedule: str | Choice | None = None

    @classmethod
    def of(cls, spec: RunSpec, steps_per_epoch: int) -> Self:
        """The schedule of a run, for a data set of this many steps an epoch."""
        return cls(spec.sparsity, spec.training, steps_per_epoch, spec.cycle, spec.phasing, spec.density_schedule)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.training.epochs

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @cached_property
    def exploring_steps(self) -> int:
        """Steps from the start of training after which no weights are exchanged any more."""
        return math.floor(Fraction(str(self.sparsity.update_until)) * self.total_steps)

    def epoch_of(self, step: int) -> int:
        """The epoch that step `step` (counted from 1) belongs to."""
        return math.ceil(step / self.steps_per_epoch)

    # Density

    @cached_property
    def cyclic_density(self) -> CyclicDensity | None:
        """The density at an epoch, for a run with cycles."""
        if self.cycle is None:
            return None
        return CyclicDensity(self.sparsity.density, self.cycle)

    @cached_property
    def peak_density(self) -> float:
        """The highest density of the training."""
        if self.density_schedule is not None:
            steps = range(0, self.resizing_end_step + 1, self.sparsity.update_period)
            return max(self.sparsity.density, *map(self.density, steps))
        return self.sparsity.density * (self.cycle.multiplier if self.cycle else 1.0)

    @cached_property
    def cycle_end_step(self) -> int:
        """The step that ends the last cycle; 0 without cycles."""
        if self.cyclic_density is None:
            return 0
        return min(self.total_steps, round(self.cyclic_density.end * self.steps_per_epoch))

    @cached_property
    def resizing_end_step(self) -> int:
        """The step of the mask update after which the density stays the target, by cycles or by a density schedule."""
        if self.density_schedule is None:
            return self.cycle_end_step
        period, target = self.sparsity.update_period, self.sparsity.density
        last = self.total_steps - (not self.sparsity.update_on_last_step)
        for step in range(last // period * period, -1, -period):
            if self.density(step) != target:
                return step + period
        return 0

    @property
    def settled_density(self) -> float:
        """The density that masks have after the cycles, and all the time without cycles."""
        if self.cycle is None or self.cycle.end == "target":
            return self.sparsity.density
        return self.cycle_density(self.cycle_end_step // self.cycle.update_period * self.cycle.update_period)

    def density(self, step: int) -> float:
        """The density that the run asks for after `step` steps, masks updated or not.

        The first step of a cycle stands at its very beginning, as in the authors' code.

        Raises:
            EastError: a density schedule gives no density.
        """
        if self._density_schedule is not None:
            entry, function = self._density_schedule
            moment, when = Moment(step, self.total_steps, self.steps_per_epoch), f"after step {step}"
            found = _number(entry, function, when, moment, self.sparsity.density)
            if not 0 < found <= 1:
                raise _out_of_range(entry, found, when)
            return found
        if step >= self.cycle_end_step:
            return self.sparsity.density
        return self.cycle_density(step)

    def cycle_density(self, step: int) -> float:
        """What the cycles give for step `step`, counted from 1, with their beginning at 0; else the target."""
        if self.cyclic_density is None:
            return self.sparsity.density
        return self.cyclic_density((step - 1) / self.steps_per_epoch)

    @cached_property
    def _density_schedule(self) -> tuple[Entry, Callable[..., Any]] | None:
        return None if self.density_schedule is None else bound(density_schedule, self.density_schedule)

    # Everything else

    def drop_fraction(self, step: int) -> float:
        """The drop fraction after `step` steps."""
        last, sparsity = self.exploring_steps, self.sparsity
        return drop_fraction(min(step, last), max(1, last), sparsity.drop_fraction, sparsity.drop_fraction_end)

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1.

        Raises:
            EastError: a learning-rate schedule gives no rate.
        """
        warm = self.warmup_steps
        if step <= warm:
            # Up to what the schedule begins with.
            return self._scheduled_rate(warm) * step / warm
        return self._scheduled_rate(step - 1)

    @cached_property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises to what its schedule begins with."""
        return round(Fraction(str(self.training.warmup_epochs)) * self.steps_per_epoch)

    def _scheduled_rate(self, done: int) -> float:
        training, moment = self.training, Moment(done, self.total_steps, self.steps_per_epoch, self.warmup_steps)
        if self._rate is None:
            drops, factor = training.lr_drop_epochs, training.lr_drop_factor
            return dropped_rate(moment, training.lr, lr_drop_epochs=drops, lr_drop_factor=factor)
        entry, function = self._rate
        found = _number(entry, function, f"after step {done}", moment, training.lr)
        if not 0 <= found < math.inf:
            raise _out_of_range(entry, found, f"after step {done}")
        return found

    @cached_property
    def _rate(self) -> tuple[Entry, Callable[..., Any]] | None:
        chosen = self.training.lr_schedule
        return None if chosen is None else bound(learning_rate, chosen)

    def beta(self, epoch: int) -> float:
        """DyReLU's β in an epoch; 0 for a network without DyReLU, and where DyReLU has become a plain ReLU."""
        return 0.0 if self.phasing is None else phasing_beta(epoch, self.phasing.start, self.phasing.end)

    def freezes_dyrelu(self, epoch: int) -> bool:
        """Whether DyReLU's parameters are frozen in an epoch.

        The authors' code compares epochs for equality, so a fade that starts between two epochs freezes nothing.
        """
        phasing = self.phasing
        return phasing is not None and phasing.freeze and phasing.start.is_integer() and epoch >= phasing.start

    def is_settled(self, epoch: int) -> bool:
        """Whether the network at the end of an epoch is of the final kind: density at the target, DyReLU faded."""
        return epoch * self.steps_per_epoch >= self.resizing_end_step and self.beta(epoch) == 0
