"""How a budget of non-zeros is distributed over the tensors of a network."""

import math
from collections.abc import Mapping
from fractions import Fraction

from east.errors import EastError
from east.sparse.kinds import distribution

Shapes = Mapping[str, tuple[int, ...]]


def budget(density: float, weights: int) -> int:
    """The number of non-zeros among `weights` weights at a density: round(density * weights), exactly.

    Args:
        density: non-zeros divided by weights, in (0, 1]; taken as the decimal number it prints as.
        weights: total number of weights.
    """
    return round(Fraction(str(density)) * weights)


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Erdős–Rényi-kernel allocation with exact integer counts (Table B.1, "Init").

    A tensor's share of the non-zeros is proportional to the sum of its dimensions, kernel included, so its density is
    proportional to sum(dims) / prod(dims). A tensor whose share exceeds its size becomes dense and the excess goes to
    the others; every tensor keeps at least one weight; fractions go to the largest remainders.

    Args:
        shapes: name -> shape of each masked tensor.
        density: target density over all tensors, in (0, 1].

    Returns:
        name -> number of non-zeros, with sum = round(density * N) exactly.

    Raises:
        EastError: the density is outside (0, 1], or gives fewer non-zeros than there are tensors.
    """
    if not 0 < density <= 1:
        raise EastError(f"density is {density}, but must be above 0 and at most 1.")
    return erk_counts(shapes, budget(density, sum(_sizes(shapes).values())))


@distribution(name="erk", paper="Evci et al., Rigging the Lottery (RigL), 2020; EAST, Table B.1")
def erk_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """Erdős–Rényi kernel, exact: counts add up to the target, at least one weight a tensor."""
    return allocate({name: sum(shape) for name, shape in shapes.items()}, _sizes(shapes), total)


@distribution(name="er", paper="Mocanu et al., SET, 2018")
def er_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """Erdős–Rényi: as ERK, but the size of the kernel does not count."""
    return allocate({name: sum(shape[:2]) for name, shape in shapes.items()}, _sizes(shapes), total)


@distribution(name="uniform")
def uniform_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """The same density in every tensor, in whole numbers of weights that add up to the target."""
    sizes = _sizes(shapes)
    return allocate(sizes, sizes, total)


@distribution(name="erk_as_coded", paper="the code of EAST's authors")
def erk_as_coded_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """Erdős–Rényi kernel, rounded per tensor and clipped to its size, nothing redistributed.

    So the sum may differ from `total` by a few weights, and by more where a tensor saturates.
    """
    sums = {name: sum(shape) for name, shape in shapes.items()}
    sizes = _sizes(shapes)
    scale = total / sum(sums.values())
    return {name: max(1, min(sizes[name], round(scale * sums[name]))) for name in shapes}


def allocate(shares: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, int]:
    """Distribute `total` units in proportion to `shares`, between 1 and its capacity to each name; see `apportion`.

    Raises:
        EastError: `total` is out of bounds.
    """
    if not len(shares) <= total <= sum(capacity.values()):
        raise EastError(
            f"{total} non-zeros do not fit {len(shares)} tensors with {sum(capacity.values())} weights, each of which "
            f"keeps at least one. Choose a density between {len(shares) / sum(capacity.values()):.2g} and 1."
        )
    return apportion(shares, capacity, total, least=dict.fromkeys(shares, 1))


def apportion(
    shares: Mapping[str, float], capacity: Mapping[str, int], total: int, *, least: Mapping[str, int]
) -> dict[str, int]:
    """Distribute `total` units in proportion to `shares`, within bounds.

    A name whose proportional part is out of bounds is fixed at the bound, and the rest is distributed again. What is
    left after whole units goes to the largest remainders (ties: to the earlier name).

    Args:
        shares: name -> its share, at least 0; if all are 0, all count as equal.
        capacity: name -> the most it can hold.
        total: units to distribute, between the sums of `least` and of `capacity`.
        least: name -> the fewest it gets.

    Returns:
        name -> units, with sum = total.
    """
    exact = _bounded_shares(shares, capacity, total, least)
    counts = {name: math.floor(part) for name, part in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _bounded_shares(
    shares: Mapping[str, float], capacity: Mapping[str, int], total: int, least: Mapping[str, int]
) -> dict[str, Fraction]:
    """Exact proportional parts within bounds that sum to `total`.

    Of the names over capacity and those under their least, the side with the larger total violation is fixed first,
    because that can bring names of the other side back within bounds.
    """
    claims = {name: Fraction(share) for name, share in shares.items()}
    fixed: dict[str, Fraction] = {}
    while True:
        free = [name for name in claims if name not in fixed]
        rest, claimed = total - sum(fixed.values(), Fraction(0)), sum((claims[name] for name in free), Fraction(0))
        if free and not claimed:
            claims |= dict.fromkeys(free, Fraction(1))
            claimed = Fraction(len(free))
        unit = rest / claimed if free else Fraction(0)
        over = {name: unit * claims[name] - capacity[name] for name in free if unit * claims[name] > capacity[name]}
        under = {name: least[name] - unit * claims[name] for name in free if unit * claims[name] < least[name]}
        if not over and not under:
            return {name: fixed.get(name, unit * claims[name]) for name in claims}
        if sum(over.values()) >= sum(under.values()):
            fixed.update({name: Fraction(capacity[name]) for name in over})
        else:
            fixed.update({name: Fraction(least[name]) for name in under})


def _sizes(shapes: Shapes) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}
