"""The masks of a whole network: drawn at the start, changed at every update of the timetable."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from east.seeding import generator
from east.sparse.distribution import DISTRIBUTIONS, budget
from east.sparse.layers import MaskedLayer, apply_masks
from east.sparse.schedule import Schedule
from east.sparse.timetable import MaskUpdate, Timetable
from east.sparse.topology import TOPOLOGIES, TopologyRule, drop_and_grow, resize


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
    rule: TopologyRule,
    seed: int,
) -> MaskChange:
    """Change all masks in place as `update` says. Off weights keep their values until masks are applied.

    Gradients are those of the batch just trained on, as left in `weight.grad`; a weight without a gradient (nothing
    of the loss depends on it) counts as having a zero gradient, and so does every weight if the rule looks at none.

    Ties and random growth depend on (seed, tensor, step).
    """
    counts = allocation.counts(update.density) if update.kind != "exchange" else {}
    looks_at_gradient = rule.needs_gradient(grows=True, drops=True)
    changes = []
    with torch.no_grad():
        for name, layer in layers.items():
            weight = layer.weight
            gradient = weight.grad if looks_at_gradient and weight.grad is not None else torch.zeros_like(weight)
            draw = generator(seed, "topology", name, update.step)
            if update.kind == "exchange":
                mask = drop_and_grow(weight, gradient, layer.mask, drop_fraction, draw, rule)
            else:
                mask = resize(weight, gradient, layer.mask, counts[name], draw, rule)
            grown = mask & ~layer.mask
            dropped = layer.mask & ~mask
            blind = (gradient[grown] == 0).sum() if rule.grows_by_gradient else grown.sum()
            active_zeros = (weight[layer.mask] == 0).sum()
            frozen = (~(grown | dropped)).all()
            changes.append(torch.stack([mask.sum(), dropped.sum(), grown.sum(), blind, active_zeros, frozen]))
            layer.mask.copy_(mask)
    return MaskChange(*(int(total) for total in torch.stack(changes).sum(0)))


@dataclass(frozen=True)
class MaskUpdater:
    """Moves the masks of a network through a training."""

    layers: Mapping[str, MaskedLayer]
    allocation: Allocation
    timetable: Timetable
    seed: int

    @property
    def schedule(self) -> Schedule:
        """The run's schedule."""
        return self.timetable.schedule

    def initialise(self) -> None:
        """Draw the masks of the start of training."""
        initialise_masks(self.layers, self.allocation.counts(self.schedule.density(0)), self.seed)

    def peak_counts(self) -> dict[str, int]:
        """Active weights of each tensor where the density is highest."""
        return self.allocation.counts(self.schedule.peak_density)

    def needs_gradient(self, step: int) -> bool:
        """Whether the masks change after step `step` (counted from 1) by the dense gradients of that step.

        By RigL they do where weights grow. While the density falls weights are only dropped, by their magnitude.
        """
        update = self.timetable.at(step)
        if update is None:
            return False
        if update.kind == "exchange":
            grows = drops = self.schedule.drop_fraction(step) > 0
        else:
            counts = self.allocation.counts(update.density)
            active = {name: int(layer.mask.sum()) for name, layer in self.layers.items()}
            grows = any(counts[name] > active[name] for name in active)
            drops = any(counts[name] < active[name] for name in active)
        return self._rule.needs_gradient(grows=grows, drops=drops)

    def update(self, step: int) -> tuple[MaskUpdate, MaskChange] | None:
        """Change the masks after step `step` (counted from 1) if the timetable says so; the gradients are that step's.

        Returns:
            What was done, or None where nothing is due.
        """
        update = self.timetable.at(step)
        if update is None:
            return None
        change = update_masks(
            self.layers,
            update,
            allocation=self.allocation,
            drop_fraction=self.schedule.drop_fraction(step),
            rule=self._rule,
            seed=self.seed,
        )
        return update, change

    @property
    def _rule(self) -> TopologyRule:
        return TOPOLOGIES[self.schedule.sparsity.topology]


def nonzeros(layers: Mapping[str, MaskedLayer]) -> int:
    """Active weights of all masks together."""
    return sum(int(layer.mask.sum()) for layer in layers.values())
