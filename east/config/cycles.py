"""Whether the cycles of a schedule fit a training."""

from east.sparse.schedule import fit_cycle_length


def cycle_lengths(cycles: int, cycle_length: float, length_multiplier: float) -> tuple[float, ...]:
    """Epochs of each cycle, the first of which has `cycle_length`."""
    return tuple(cycle_length * length_multiplier**i for i in range(cycles))


def cycles_fit(epochs: int, cycles: int, cycle_length: float, length_multiplier: float) -> bool:
    """Whether all cycles end with the training or before it, without being shortened."""
    return fit_cycle_length(epochs, cycles, cycle_length, length_multiplier, rescale=True) == cycle_length
