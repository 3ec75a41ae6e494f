"""The masks of a whole network: drawn at the start, changed by every update of the timetable."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from east.seeding import generator
from east.sparse.distribution import DISTRIBUTIONS, budget
from east.sparse.layers import MaskedLayer, apply_masks
from east.sparse.timetable import MaskUpdate
from east.sparse.topology import Grow, drop_and_grow, resize


@dataclass(frozen=True)
class Allocation:
    """The rule that says how many non-zeros each tensor holds at a density.

    Args:
        shapes: name -> shape of every masked tensor.
        distribution: a key of `DISTRIBUTIONS`.
        dense_weights: weights of the dense network that densities refer to. With weight sharing it exceeds the stored
            weights, so that the stored non-zeros are density * dense size (Section D).
    """

    shapes: Mapping[str, tuple[int, ...]]
    distribution: str
    dense_weights: int

    def counts(self, density: float) -> dict[str, int]:
        """Non-zeros of each tensor, with sum = round(density * dense_weights)."""
        return DISTRIBUTIONS[self.distribution](self.shapes, budget(density, self.dense_weights))


@dataclass(frozen=True)
class MaskChange:
    """What an update did, summed over the tensors.

    Args:
        nonzeros: active weights after it.
        dropped: weights that left a mask.
        grown: weights that entered a mask.
        blind_growth: those of them whose gradient was exactly zero, or was not looked at.
        active_zeros: active weights that were exactly zero just before it.
        frozen_layers: tensors whose mask came out unchanged.
    """

    nonzeros: int
    dropped: int
    grown: int
    blind_growth: int
    active_zeros: int
    frozen_layers: int


def initialise_masks(layers: Mapping[str, MaskedLayer], counts: Mapping[str, int], seed: int) -> None:
    """Draw a random mask with exactly `counts[name]` active weights for every layer, and zero the off weights."""
    with torch.no_grad():
        for name, layer in layers.items():
            mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
            mask[generator(seed, "mask", name).choose(layer.weight.numel(), counts[name])] = True
            layer.mask.copy_(mask.view_as(layer.mask))
    apply_masks(layers)


def update_masks(
    layers: Mapping[str, MaskedLayer],
    update: MaskUpdate,
    *,
    allocation: Allocation,
    drop_fraction: float,
    grow: Grow,
    needs_gradient: bool,
    seed: int,
) -> MaskChange:
    """Change all masks in place as `update` says. Off weights keep their values until masks are applied.

    Gradients are those of the batch just trained on, as left in `weight.grad`; a weight without a gradient (nothing
    of the loss depends on it) counts as having a zero gradient, and so does every weight if growth does not look at it.

    Args:
        layers: the masked layers by name.
        update: what happens at this step.
        allocation: gives each tensor's count for the resizing kinds.
        drop_fraction: share of a tensor's weights that an exchange drops.
        grow: growth rule of the topology.
        needs_gradient: whether it looks at the gradient.
        seed: the run's seed; ties and random growth depend on (seed, tensor, step).
    """
    counts = allocation.counts(update.density) if update.kind != "exchange" else {}
    changes = []
    with torch.no_grad():
        for name, layer in layers.items():
            weight = layer.weight
            gradient = weight.grad if needs_gradient and weight.grad is not None else torch.zeros_like(weight)
            draw = generator(seed, "topology", name, update.step)
            if update.kind == "exchange":
                mask = drop_and_grow(weight, gradient, layer.mask, drop_fraction, draw, grow=grow)
            else:
                mask = resize(weight, gradient, layer.mask, counts[name], draw, grow=grow)
            grown = mask & ~layer.mask
            dropped = layer.mask & ~mask
            changes.append(
                torch.stack(
                    [
                        mask.sum(),
                        dropped.sum(),
                        grown.sum(),
                        (gradient[grown] == 0).sum(),
                        (weight[layer.mask] == 0).sum(),
                        (~(grown | dropped)).all(),
                    ]
                )
            )
            layer.mask.copy_(mask)
    return MaskChange(*(int(total) for total in torch.stack(changes).sum(0)))


def nonzeros(layers: Mapping[str, MaskedLayer]) -> int:
    """Active weights of all masks together."""
    return sum(int(layer.mask.sum()) for layer in layers.values())
