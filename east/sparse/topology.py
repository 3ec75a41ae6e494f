"""Which weights leave a mask and which enter it: drop by magnitude, grow by gradient or at random.

Counts are exact. Only active weights compete to stay and only inactive ones to grow. Ties are broken at random: at the
paper's density most gradients are exactly zero, so breaking ties by index would grow the first filters. Both zeros are
equal, infinity is the largest magnitude, and all NaNs rank equal below every number, so no value can break a count.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from east.seeding import RandomBits, as_random_bits

Generator = RandomBits | torch.Generator | None
"""What ties and random growth are drawn from: random bits, or a CPU generator of PyTorch; its default one if None."""

Grow = Callable[[Tensor, Tensor, int, Generator], Tensor]


def drop_and_grow(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    fraction: float,
    generator: Generator = None,
    *,
    grow: "Grow | None" = None,
) -> Tensor:
    """Exchange a fraction of a tensor's active weights (RigL with the default growth; Section A.1).

    The ceil(fraction * n) active weights of smallest magnitude are dropped and as many inactive ones grown. A weight
    dropped here is inactive and may be grown again at once; the caller then finds its value unchanged.

    Args:
        weight: the tensor, any shape.
        gradient: dense gradient of the loss, same shape.
        mask: boolean, same shape, with n active weights.
        fraction: drop fraction in [0, 1].
        generator: breaks ties.
        grow: how inactive weights are chosen; by gradient if None.

    Returns:
        The new boolean mask, with n active weights. Nothing is changed in place.
    """
    active = int(mask.sum())
    dropped = min(active, math.ceil(fraction * active))
    kept = keep_largest(weight, mask, active - dropped, generator)
    return kept | (grow or grow_by_gradient)(gradient, ~kept, dropped, generator)


def resize(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    count: int,
    generator: Generator = None,
    *,
    grow: "Grow | None" = None,
) -> Tensor:
    """Grow or prune a tensor to `count` active weights, as the cyclic schedule does; nothing else changes.

    Args and result are as for `drop_and_grow`; `count` lies between 0 and the size of the tensor.
    """
    active = int(mask.sum())
    if count < active:
        return keep_largest(weight, mask, count, generator)
    return mask | (grow or grow_by_gradient)(gradient, ~mask, count - active, generator)


def keep_largest(weight: Tensor, mask: Tensor, count: int, generator: Generator = None) -> Tensor:
    """The mask of the `count` active weights of largest magnitude; active zeros compete like any other value."""
    return _largest(weight, mask, count, generator)


def grow_by_gradient(gradient: Tensor, candidates: Tensor, count: int, generator: Generator = None) -> Tensor:
    """The mask of the `count` candidates with the largest gradient magnitude (RigL)."""
    return _largest(gradient, candidates, count, generator)


def grow_at_random(gradient: Tensor, candidates: Tensor, count: int, generator: Generator = None) -> Tensor:
    """The mask of `count` candidates drawn uniformly without replacement (SET); the gradient is not looked at."""
    positions = candidates.flatten().nonzero().squeeze(1)
    return _mask_of(positions[_choose(len(positions), count, generator, gradient.device)], candidates)


@dataclass(frozen=True)
class TopologyRule:
    """How the masks of a method move.

    Args:
        grow: how inactive weights are chosen; None keeps the masks fixed.
        needs_gradient: whether growth looks at the dense gradient.
    """

    grow: Grow | None
    needs_gradient: bool


TOPOLOGIES: dict[str, TopologyRule] = {
    "rigl": TopologyRule(grow_by_gradient, needs_gradient=True),
    "set": TopologyRule(grow_at_random, needs_gradient=False),
    "fixed": TopologyRule(None, needs_gradient=False),
}
"""Topology name in the config -> rule."""


def _largest(values: Tensor, among: Tensor, count: int, generator: Generator) -> Tensor:
    """The mask of the `count` values of largest magnitude among the positions of `among`, ties drawn at random.

    The threshold is the magnitude of rank `count`. All above it are taken, and what is missing is drawn among those at
    it, in the order of their indices, whatever the tensor's layout and device.
    """
    positions = among.flatten().nonzero().squeeze(1)
    if count >= len(positions):
        return among.clone()
    if count <= 0:
        return torch.zeros_like(among)
    scores = values.flatten()[positions].abs().nan_to_num_(nan=-1.0, posinf=math.inf)
    threshold = scores.topk(count, sorted=False).values.min()
    above = positions[scores > threshold]
    tied = positions[scores == threshold]
    lucky = tied[_choose(len(tied), count - len(above), generator, values.device)]
    return _mask_of(torch.cat((above, lucky)), among)


def _choose(population: int, count: int, generator: Generator, device: torch.device) -> Tensor:
    """`count` of the numbers below `population`, drawn on the CPU so that every device draws the same ones."""
    return as_random_bits(generator).choose(population, count).to(device)


def _mask_of(positions: Tensor, like: Tensor) -> Tensor:
    mask = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    mask[positions] = True
    return mask.view(like.shape)
