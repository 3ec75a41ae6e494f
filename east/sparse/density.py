"""How the density moves in time: patterns of the paper's cycles, and schedules that take their place.

Without PyTorch, so that a plan can be looked at before anything is loaded.
"""

from fractions import Fraction as Exact

from east.parameters import Fraction, Share
from east.sparse.exact import cos_pi
from east.sparse.kinds import cycle_pattern, density_schedule
from east.sparse.moment import Moment


@cycle_pattern(name="cosine", paper="EAST, Section C")
def cosine_cycle(position: float) -> float:
    """Height of a cosine cycle, 0 at its ends and 1 in the middle: (1 - cos 2πp) / 2 (Section C).

    Args:
        position: share of the cycle that has passed, in [0, 1].
    """
    return (1 - cos_pi(2 * Exact(position))) / 2


@cycle_pattern(name="triangular", paper="EAST, Section C")
def triangular_cycle(position: float) -> float:
    """Height of a triangular cycle, 0 at its ends and 1 in the middle: 2p, then 2(1 - p) (Section C)."""
    return 2 * min(position, 1 - position)


@density_schedule(paper="Zhu & Gupta, To prune, or not to prune, 2017, equation 1")
def cubic(moment: Moment, target: float, *, initial: Share = 1.0, begin: Fraction = 0.0, end: Fraction = 0.75) -> float:
    """Gradual pruning: the density falls to the target as a cubic, fast at first.

    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3 for the sparsity s, between `begin` and `end`.

    Args:
        moment: when.
        target: the density of the end.
        initial: the density of the start; 1 begins with a dense network.
        begin: share of the training after which the density begins to fall.
        end: share of the training after which it is the target.
    """
    passed = _passed(moment, begin, end)
    return float(Exact(str(target)) + (Exact(str(initial)) - Exact(str(target))) * (1 - passed) ** 3)


@density_schedule(name="linear")
def linear_density(
    moment: Moment, target: float, *, initial: Share = 1.0, begin: Fraction = 0.0, end: Fraction = 0.75
) -> float:
    """The density goes to the target in a straight line, down or up.

    Args:
        moment: when.
        target: the density of the end.
        initial: the density of the start.
        begin: share of the training after which the density begins to move.
        end: share of the training after which it is the target.
    """
    passed = _passed(moment, begin, end)
    return float(Exact(str(target)) + (Exact(str(initial)) - Exact(str(target))) * (1 - passed))


def _passed(moment: Moment, begin: float, end: float) -> Exact:
    """What has passed of the way between two shares of the training, in [0, 1]."""
    first, last = Exact(str(begin)), Exact(str(end))
    if moment.share >= last:
        return Exact(1)
    if moment.share <= first:
        return Exact(0)
    return (moment.share - first) / (last - first)
