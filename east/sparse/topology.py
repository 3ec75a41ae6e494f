"""Which weights leave a mask and which enter it: drop by magnitude, grow by gradient or at random.

Counts are exact, only active weights compete to stay and only inactive ones to grow, and ties are broken by a random
generator. At the paper's density most gradients are exactly zero, so a tie broken by index would grow the first filter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Grow = Callable[[Tensor, Tensor, int, torch.Generator | None], Tensor]


def drop_and_grow(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    fraction: float,
    generator: torch.Generator | None = None,
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
        generator: CPU generator that breaks ties; torch's default one if None.
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
    generator: torch.Generator | None = None,
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


def keep_largest(weight: Tensor, mask: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The mask of the `count` active weights of largest magnitude; active zeros compete like any other value."""
    return _largest(weight.abs(), mask, count, generator)


def grow_by_gradient(
    gradient: Tensor, candidates: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """The mask of the `count` candidates with the largest gradient magnitude (RigL)."""
    return _largest(gradient.abs(), candidates, count, generator)


def grow_at_random(
    gradient: Tensor, candidates: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """The mask of `count` candidates drawn uniformly without replacement (SET); the gradient is not looked at."""
    positions = candidates.flatten().nonzero().squeeze(1)
    return _mask_of(positions[_draw(len(positions), count, generator, gradient.device)], candidates)


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


def _largest(scores: Tensor, among: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """The mask of the `count` largest scores among the positions of `among`, ties at the threshold drawn at random."""
    positions = among.flatten().nonzero().squeeze(1)
    if count >= len(positions):
        return among.clone()
    if count <= 0:
        return torch.zeros_like(among)
    values = scores.flatten()[positions]
    threshold = values.topk(count, sorted=False).values.min()
    above = positions[values > threshold]
    tied = positions[values == threshold]
    lucky = tied[_draw(len(tied), count - len(above), generator, scores.device)]
    return _mask_of(torch.cat((above, lucky)), among)


def _draw(population: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """`count` of the numbers below `population`, drawn on the CPU so that every device draws the same ones."""
    return torch.randperm(population, generator=generator)[:count].to(device)


def _mask_of(positions: Tensor, like: Tensor) -> Tensor:
    mask = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    mask[positions] = True
    return mask.view(like.shape)
