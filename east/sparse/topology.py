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

from east.seeding import RandomBits

Keep = Callable[[Tensor, Tensor, Tensor, int, RandomBits], Tensor]
"""A drop rule: (weight, gradient, mask, count, generator) -> the mask of the `count` active weights that stay."""

Grow = Callable[[Tensor, Tensor, int, RandomBits], Tensor]
"""A growth rule: (gradient, candidates, count, generator) -> the mask of `count` of the candidates."""


@dataclass(frozen=True)
class TopologyRule:
    """How the masks of a method move.

    Args:
        keep: which active weights stay.
        grow: which inactive weights enter.
        grows_by_gradient: whether growth looks at the dense gradient; if not, it gets zeros.
        drops_by_gradient: whether dropping does.
    """

    keep: Keep
    grow: Grow
    grows_by_gradient: bool = False
    drops_by_gradient: bool = False

    def needs_gradient(self, *, grows: bool, drops: bool) -> bool:
        """Whether an update that grows or drops weights needs the dense gradient."""
        return (grows and self.grows_by_gradient) or (drops and self.drops_by_gradient)


def drop_and_grow(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    fraction: float,
    generator: RandomBits,
    rule: TopologyRule,
) -> Tensor:
    """Exchange a fraction of a tensor's active weights (Section A.1).

    By RigL, the ceil(fraction * n) active weights of smallest magnitude are dropped and as many inactive ones grown. A
    weight dropped here is inactive and may be grown again at once; the caller then finds its value unchanged.

    Args:
        weight: the tensor, any shape.
        gradient: dense gradient of the loss, same shape.
        mask: boolean, same shape, with n active weights.
        fraction: drop fraction in [0, 1].
        generator: breaks ties.
        rule: what is dropped and grown.

    Returns:
        The new boolean mask, with n active weights. Nothing is changed in place.
    """
    active = int(mask.sum())
    dropped = math.ceil(fraction * active)
    kept = rule.keep(weight, gradient, mask, active - dropped, generator)
    return kept | rule.grow(gradient, ~kept, dropped, generator)


def resize(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    count: int,
    generator: RandomBits,
    rule: TopologyRule,
) -> Tensor:
    """Grow or prune a tensor to `count` active weights, as the cyclic schedule does; nothing else changes.

    Args and result are as for `drop_and_grow`; `count` lies between 0 and the size of the tensor.
    """
    active = int(mask.sum())
    if count < active:
        return rule.keep(weight, gradient, mask, count, generator)
    return mask | rule.grow(gradient, ~mask, count - active, generator)


def keep_largest(weight: Tensor, gradient: Tensor, mask: Tensor, count: int, generator: RandomBits) -> Tensor:
    """The mask of the `count` active weights of largest magnitude; active zeros compete like any other value."""
    return _largest(weight, mask, count, generator)


def grow_by_gradient(gradient: Tensor, candidates: Tensor, count: int, generator: RandomBits) -> Tensor:
    """The mask of the `count` candidates with the largest gradient magnitude (RigL)."""
    return _largest(gradient, candidates, count, generator)


def grow_at_random(gradient: Tensor, candidates: Tensor, count: int, generator: RandomBits) -> Tensor:
    """The mask of `count` candidates drawn uniformly without replacement (SET); the gradient is not looked at."""
    positions = candidates.flatten().nonzero().squeeze(1)
    return _mask_of(positions[_choose(len(positions), count, generator, gradient.device)], candidates)


TOPOLOGIES: dict[str, TopologyRule] = {
    "rigl": TopologyRule(keep_largest, grow_by_gradient, grows_by_gradient=True),
    "set": TopologyRule(keep_largest, grow_at_random),
}
"""Topology name in the config -> rule. There is none for `fixed`: those masks never change."""


def _largest(values: Tensor, among: Tensor, count: int, generator: RandomBits) -> Tensor:
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


def _choose(population: int, count: int, generator: RandomBits, device: torch.device) -> Tensor:
    """`count` of the numbers below `population`, drawn on the CPU so that every device draws the same ones."""
    return generator.choose(population, count).to(device)


def _mask_of(positions: Tensor, like: Tensor) -> Tensor:
    mask = like.new_zeros(like.numel())
    mask[positions] = True
    return mask.view(like.shape)
