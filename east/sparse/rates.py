"""How the learning rate moves in time; without PyTorch."""

from decimal import Decimal
from fractions import Fraction as Exact

from east.parameters import Epochs, Fraction, Positive
from east.sparse.exact import cos_pi
from east.sparse.kinds import learning_rate
from east.sparse.moment import Moment


@learning_rate(name="drops", paper="EAST, Table B.1")
def dropped_rate(
    moment: Moment, lr: float, *, lr_drop_epochs: tuple[Epochs, ...] = (), lr_drop_factor: Positive = 0.1
) -> float:
    """The learning rate of Table B.1: `lr` times the drop factor for each drop epoch that is over.

    Args:
        moment: when.
        lr: at the start.
        lr_drop_epochs: after which the rate drops: a key of the recipe itself.
        lr_drop_factor: what it is multiplied by then: likewise.
    """
    drops = sum(moment.epoch_number > drop for drop in lr_drop_epochs)
    # In decimals, so that 0.1 dropped twice is 0.001 and not its neighbour.
    return float(Decimal(str(lr)) * Decimal(str(lr_drop_factor)) ** drops)


@learning_rate(name="cosine", paper="Loshchilov & Hutter, SGDR, 2017, equation 5, without restarts")
def cosine_rate(moment: Moment, lr: float, *, end: Fraction = 0.0) -> float:
    """Half a cosine from `lr` to a share of it, step by step.

    Args:
        moment: when.
        lr: at the start.
        end: the rate of the end, divided by `lr`.
    """
    return _by_cosine(moment.share, lr, lr * end)


@learning_rate(name="linear")
def linear_rate(moment: Moment, lr: float, *, end: Fraction = 0.0) -> float:
    """A straight line from `lr` to a share of it, step by step.

    Args:
        moment: when.
        lr: at the start.
        end: the rate of the end, divided by `lr`.
    """
    return lr * end + (lr - lr * end) * float(1 - moment.share)


@learning_rate(paper="Smith & Topin, Super-convergence, 2018; both ways by half a cosine, as PyTorch's OneCycleLR")
def one_cycle(
    moment: Moment, lr: float, *, rise: Fraction = 0.3, start: Fraction = 0.04, end: Fraction = 4e-6
) -> float:
    """Up to `lr` and down again, each by half a cosine, step by step.

    Args:
        moment: when.
        lr: the highest rate.
        rise: share of the training in which the rate rises.
        start: the rate of the start, divided by `lr`.
        end: the rate of the end, divided by `lr`.
    """
    top = Exact(str(rise))
    if moment.share < top:
        return _by_cosine(moment.share / top, lr * start, lr)
    return _by_cosine((moment.share - top) / (1 - top) if top < 1 else Exact(1), lr, lr * end)


def _by_cosine(share: Exact, first: float, last: float) -> float:
    """Half a cosine from one number to another."""
    return last + (first - last) * (1 + cos_pi(share)) / 2
