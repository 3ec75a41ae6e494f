"""What density and what drop fraction hold at a moment of training: pure functions of time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from east.errors import EastError
from east.sparse.exact import cos_pi


def cosine_cycle(position: float) -> float:
    """Height of a cosine cycle, 0 at its ends and 1 in the middle: (1 - cos 2πp) / 2 (Section C).

    Args:
        position: share of the cycle that has passed, in [0, 1].
    """
    return (1 - cos_pi(2 * Fraction(position))) / 2


def triangular_cycle(position: float) -> float:
    """Height of a triangular cycle, 0 at its ends and 1 in the middle: 2p, then 2(1 - p) (Section C)."""
    return 2 * min(position, 1 - position)


CYCLE_PATTERNS: dict[str, Callable[[float], float]] = {"cosine": cosine_cycle, "triangular": triangular_cycle}
"""Pattern name in the config -> height of the cycle in [0, 1] at a position in [0, 1]."""


@dataclass(frozen=True)
class CyclicDensity:
    """The cyclic density schedule of Section C: n cycles back to back from the start, then the target density.

    Args:
        target: the density that each cycle starts and ends at, in (0, 1].
        multiplier: peak density divided by `target`, more than 1.
        pattern: a key of `CYCLE_PATTERNS`.
        cycles: number of cycles.
        cycle_length: epochs of the first cycle.
        length_multiplier: length of each cycle divided by that of the one before.

    Raises:
        EastError: the peak density would exceed 1, the pattern is unknown, or a number is out of range.
    """

    target: float
    multiplier: float
    pattern: str
    cycles: int
    cycle_length: float
    length_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if self.pattern not in CYCLE_PATTERNS:
            raise EastError(f"cycle pattern '{self.pattern}' is not one of {', '.join(CYCLE_PATTERNS)}.")
        if self.multiplier <= 1 or self.cycles < 1 or self.cycle_length <= 0 or self.length_multiplier <= 0:
            raise EastError(
                f"a cyclic schedule needs multiplier > 1, cycles >= 1 and positive lengths, not multiplier "
                f"{self.multiplier:g}, {self.cycles} cycles of {self.cycle_length:g} epochs, length multiplier "
                f"{self.length_multiplier:g}."
            )
        if not 0 < self.target * self.multiplier <= 1:
            raise EastError(
                f"density {self.target:g} times multiplier {self.multiplier:g} is a peak density of "
                f"{self.target * self.multiplier:g}, which is not in (0, 1]."
            )

    @property
    def lengths(self) -> tuple[float, ...]:
        """Epochs of each cycle."""
        return cycle_lengths(self.cycles, self.cycle_length, self.length_multiplier)

    @property
    def end(self) -> float:
        """Epochs from the start of training to the end of the last cycle."""
        return math.fsum(self.lengths)

    def __call__(self, epoch: float) -> float:
        """The scheduled density after `epoch` epochs (a float, 0 at the start of training)."""
        start = 0.0
        for length in self.lengths:
            if epoch < start + length:
                height = CYCLE_PATTERNS[self.pattern](max(0.0, (epoch - start) / length))
                return self.target * (1 + (self.multiplier - 1) * height)
            start += length
        return self.target


def cycle_lengths(cycles: int, cycle_length: float, length_multiplier: float) -> tuple[float, ...]:
    """Epochs of each cycle: cycle_length * length_multiplier^i, each rounded once.

    Args:
        cycles: number of cycles.
        cycle_length: epochs of the first cycle; read, like the multiplier, as the decimal number it prints as.
        length_multiplier: length of each cycle divided by that of the one before.
    """
    first, factor = Fraction(str(cycle_length)), Fraction(str(length_multiplier))
    return tuple(float(first * factor**i) for i in range(cycles))


def fit_cycle_length(
    epochs: int, cycles: int, cycle_length: float, length_multiplier: float, *, rescale: bool
) -> float:
    """The length in epochs of the first cycle, such that all cycles fit the training.

    Args:
        epochs: epochs of the whole training.
        cycles: number of cycles.
        cycle_length: epochs wanted for the first cycle.
        length_multiplier: length of each cycle divided by that of the one before.
        rescale: shorten all cycles in proportion, to end with the training, where they do not fit.

    Raises:
        EastError: they do not fit and `rescale` is off; the sentence names the numbers.
    """
    lengths = cycle_lengths(cycles, cycle_length, length_multiplier)
    if math.fsum(lengths) <= epochs:
        return cycle_length
    if rescale:
        return cycle_length * epochs / math.fsum(lengths)
    raise EastError(
        f"{cycles} cycles of {' + '.join(f'{length:g}' for length in lengths)} = {math.fsum(lengths):g} epochs do not "
        f"fit a training of {epochs} epochs. Use fewer or shorter cycles, or set 'fit: rescale' in this row."
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
