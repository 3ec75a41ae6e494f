"""How a budget of non-zeros is spread over the tensors of a network."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from east.errors import EastError

Shapes = Mapping[str, tuple[int, ...]]


def budget(density: float, weights: int) -> int:
    """The number of non-zeros of `weights` weights at a density: round(density * weights), exactly.

    Args:
        density: non-zeros divided by weights, in (0, 1]; read as the decimal number it prints as.
        weights: total number of weights.
    """
    return round(Fraction(str(density)) * weights)


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Erdős–Rényi-kernel allocation with exact integer counts (Table B.1, "Init").

    A tensor's share of the non-zeros is proportional to the sum of its dimensions, kernel included, so its density is
    proportional to sum(dims) / prod(dims). A tensor whose share exceeds its size is made dense and the excess goes to
    the others; every tensor keeps at least one weight; fractions are settled by largest remainder.

    Args:
        shapes: name -> shape of each masked tensor.
        density: target density over all tensors, in (0, 1].

    Returns:
        name -> number of non-zeros, with sum = round(density * N) exactly.

    Raises:
        EastError: the density is outside (0, 1], or gives fewer non-zeros than there are tensors.
    """
    return erk_counts(shapes, _checked_budget(shapes, density))


def erk_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """`erk` for a budget that is already a whole number of weights."""
    return allocate({name: sum(shape) for name, shape in shapes.items()}, _sizes(shapes), total)


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """The same density in every tensor, with exact integer counts: arguments, result and errors as for `erk`."""
    return uniform_counts(shapes, _checked_budget(shapes, density))


def uniform_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """`uniform` for a budget that is already a whole number of weights."""
    sizes = _sizes(shapes)
    return allocate(sizes, sizes, total)


def erk_as_coded_counts(shapes: Shapes, total: int) -> dict[str, int]:
    """ERK as the authors' code has it: each tensor rounded on its own and clipped to its size, nothing redistributed.

    The sum may therefore differ from `total` by a few weights (and by more where a tensor saturates).
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
    """Share out `total` units in proportion to `shares`, each name getting between 1 and its capacity.

    Names whose proportional part lies outside these bounds are fixed at the bound and the rest is shared out again;
    what is left after whole units goes to the largest remainders (ties: to the earlier name).

    Args:
        shares: name -> positive weight of its claim.
        capacity: name -> the most it can hold (at least 1).
        total: units to share out, between the number of names and the sum of the capacities.

    Returns:
        name -> units, with sum = total.

    Raises:
        EastError: `total` is out of these bounds.
    """
    if not len(shares) <= total <= sum(capacity.values()):
        raise EastError(
            f"{total} non-zeros cannot be spread over {len(shares)} tensors that hold {sum(capacity.values())} weights "
            f"and keep at least one each. Choose a density of at least {len(shares) / sum(capacity.values()):.2g}."
        )
    exact = _bounded_shares(shares, capacity, total)
    counts = {name: math.floor(part) for name, part in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _bounded_shares(shares: Mapping[str, float], capacity: Mapping[str, int], total: int) -> dict[str, Fraction]:
    """Exact proportional parts within [1, capacity], summing to `total`.

    Names over capacity and names under one are found together; the side with the larger violation is fixed first,
    as fixing one side can bring a name of the other back within its bounds.
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


def _checked_budget(shapes: Shapes, density: float) -> int:
    if not 0 < density <= 1:
        raise EastError(f"density {density} is not in (0, 1].")
    return budget(density, sum(_sizes(shapes).values()))
