"""How a budget of non-zeros is distributed over the tensors of a network."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from east.errors import EastError

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


def erk_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """`erk` for a budget given as a number of weights."""
    return allocate({name: sum(shape) for name, shape in shapes.items()}, _sizes(shapes), total)


def uniform_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """The same density in every tensor, with exact integer counts that add up to `total`."""
    sizes = _sizes(shapes)
    return allocate(sizes, sizes, total)


def erk_as_coded_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """ERK as in the authors' code: each tensor rounded separately and clipped to its size, nothing redistributed.

    So the sum may differ from `total` by a few weights, and by more where a tensor saturates.
    """
    sums = {name: sum(shape) for name, shape in shapes.items()}
    sizes = _sizes(shapes)
    scale = total / sum(sums.values())
    return {name: max(1, min(sizes[name], round(scale * sums[name]))) for name in shapes}


DISTRIBUTIONS: dict[str, Callable[[Shapes, int], dict[str, int]]] = {
    "erk": erk_counts,
    "uniform": uniform_counts,
    "erk_as_coded": erk_as_coded_counts,
}
"""Distribution name in the config -> (shapes, number of non-zeros) -> count per tensor."""


def allocate(shares: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, int]:
    """Distribute `total` units in proportion to `shares`, between 1 and its capacity to each name.

    A name whose proportional part is out of bounds is fixed at the bound, and the rest is distributed again. What is
    left after whole units goes to the largest remainders (ties: to the earlier name).

    Args:
        shares: name -> its positive share.
        capacity: name -> the most it can hold (at least 1).
        total: units to distribute, between the number of names and the sum of the capacities.

    Returns:
        name -> units, with sum = total.

    Raises:
        EastError: `total` is out of bounds.
    """
    if not len(shares) <= total <= sum(capacity.values()):
        raise EastError(
            f"{total} non-zeros do not fit {len(shares)} tensors with {sum(capacity.values())} weights, each of which "
            f"keeps at least one. Choose a density between {len(shares) / sum(capacity.values()):.2g} and 1."
        )
    exact = _bounded_shares(shares, capacity, total)
    counts = {name: math.floor(part) for name, part in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _bounded_shares(shares: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, Fraction]:
    """Exact proportional parts within [1, capacity] that sum to `total`.

    Of the names over capacity and those under one, the side with the larger total violation is fixed first, because
    that can bring names of the other side back within bounds.
    """
    claims = {name: Fraction(share) for name, share in shares.items()}
    fixed: dict[str, Fraction] = {}
    while True:
        free = [name for name in claims if name not in fixed]
        rest = total - sum(fixed.values(), Fraction(0))
        unit = rest / sum((claims[name] for name in free), Fraction(0)) if free else Fraction(0)
        over = {name: unit * claims[name] - capacity[name] for name in free if unit * claims[name] > capacity[name]}
        under = {name: 1 - unit * claims[name] for name in free if unit * claims[name] < 1}
        if not over and not under:
            return {name: fixed.get(name, unit * claims[name]) for name in claims}
        if sum(over.values()) >= sum(under.values()):
            fixed.update({name: Fraction(capacity[name]) for name in over})
        else:
            fixed.update({name: Fraction(1) for name in under})


def _sizes(shapes: Shapes) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}
