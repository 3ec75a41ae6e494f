"""When DyReLU fades into ReLU: β as a function of the epoch."""


def phasing_bounds(epochs: int) -> tuple[float, float]:
    """First and last epoch of the fade for a training of `epochs` epochs, as in the authors' code.

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
