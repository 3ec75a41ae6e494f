"""The masks of a whole network: drawn at the start, changed at every update of the timetable."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from east.config.choices import Choice, TopologySpec, bound, named
from east.errors import EastError
from east.plugins import blamed
from east.seeding import RandomBits, generator
from east.sparse.distribution import apportion, budget
from east.sparse.kinds import distribution, drop_rule, growth_rule, initial_values
from east.sparse.layers import MaskedLayer, apply_masks
from east.sparse.schedule import Schedule
from east.sparse.timetable import MaskUpdate, Timetable
from east.sparse.topology import TOPOLOGIES, Rule, Topology, choose_together, fraction_of, grow, keep
from east.sparse.view import Layer

StateOf = Callable[[str, str], Tensor]
"""(layer name, name of a state) -> optimizer state in the layer's shape, zero where the mask is off."""


@dataclass(frozen=True)
class Allocation:
    """The rule that says how many non-zeros each tensor holds at a density.

    Args:
        shapes: name -> shape of every masked tensor.
        distribution: which rule, as a run's description names it.
        dense_weights: weights of the dense network that densities refer to. With weight sharing it exceeds the stored
            weights, so that the stored non-zeros are density * dense size (Section D).
    """

    shapes: Mapping[str, tuple[int, ...]]
    distribution: str | Choice
    dense_weights: int

    def counts(self, density: float) -> dict[str, int]:
        """Non-zeros of each tensor, with sum = round(density * dense_weights)."""
        return self.spread(budget(density, self.dense_weights))

    def spread(self, total: int) -> dict[str, int]:
        """So many non-zeros as the rule spreads them.

        Raises:
            EastError: a rule of a plugin spreads them over other tensors, or does not fit these.
        """
        entry, spread = bound(distribution, self.distribution)
        with blamed(entry, f"for {total:,} non-zeros"):
            counts: dict[str, int] = spread(self.shapes, total)
        if entry.plugin is not None and not _fits(counts, self.shapes, total):
            wanted = f"whole numbers from 1 to the size of each of {len(self.shapes)} tensors, {total:,} together"
            raise EastError(f"{entry.place}: {entry.title} must give {wanted}, and gave {sum(counts.values()):,}.")
        return counts


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


def _fits(counts: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], total: int) -> bool:
    return (
        counts.keys() == shapes.keys()
        and all(isinstance(count, int) and 1 <= count <= math.prod(shapes[name]) for name, count in counts.items())
        and sum(counts.values()) == total
    )


@dataclass(frozen=True, eq=False)
class Memory:
    """What rules keep from step to step: rule -> layer -> name -> tensor."""

    kept: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)

    def of(self, rule: str, layer: str) -> dict[str, Tensor]:
        """That of a rule about a layer, which may be changed."""
        return self.kept.setdefault(rule, {}).setdefault(layer, {})

    def tensors(self) -> dict[str, Tensor]:
        """All of it, under one name each."""
        return {
            f"{layer}.{rule}.{name}": tensor
            for rule, layers in self.kept.items()
            for layer, own in layers.items()
            for name, tensor in own.items()
        }

    def load(self, saved: Mapping[str, Mapping[str, Mapping[str, Tensor]]], device: torch.device) -> None:
        """Take over what a checkpoint has."""
        for rule, layers in saved.items():
            for layer, own in layers.items():
                self.of(rule, layer).update({name: tensor.to(device) for name, tensor in own.items()})


@dataclass(frozen=True, eq=False)
class _Views:
    """The layers of a network as rules see them at one update."""

    layers: Mapping[str, MaskedLayer]
    step: int
    seed: int
    schedule: Schedule | None
    memory: Memory
    state_of: StateOf | None
    with_gradient: bool

    def of(self, rule: str) -> dict[str, Layer]:
        """The view of one rule of every layer."""
        return {name: self._view(rule, name, layer) for name, layer in self.layers.items()}

    def _view(self, rule: str, name: str, layer: MaskedLayer) -> Layer:
        weight = layer.weight.detach()
        gradient = layer.weight.grad if self.with_gradient and layer.weight.grad is not None else None
        return Layer(
            name=name,
            weight=weight,
            gradient=torch.zeros_like(weight) if gradient is None else gradient,
            mask=layer.mask,
            step=self.step,
            memory=self.memory.of(rule, name),
            schedule=self.schedule,
            seed=self.seed,
            purpose=f"{rule} rule",
            state_of=None if self.state_of is None else partial(self.state_of, name),
        )


def update_masks(
    layers: Mapping[str, MaskedLayer],
    update: MaskUpdate,
    *,
    allocation: Allocation,
    drop_fraction: float,
    rule: Topology,
    seed: int,
    exchanges: bool | None = None,
    schedule: Schedule | None = None,
    memory: Memory | None = None,
    state_of: StateOf | None = None,
) -> MaskChange:
    """Change all masks in place as `update` says. Off weights keep their values until masks are applied.

    The rules say which weights move; how many is settled here. An exchange drops ceil(f n) of the n weights of each
    layer, or as many as the drop rule itself says, and grows as many: in the layer that lost them, or where the growth
    rule wants them. Any other update leaves each layer with what the allocation gives it at the scheduled density, and
    where it `exchanges` drops at least what an exchange would. A rule that compares all layers has the same totals.

    Gradients are those of the batch just trained on, as left in `weight.grad`; a weight without a gradient (nothing
    of the loss depends on it) counts as having a zero gradient, and so does every weight if no rule looks at any.

    Ties and random growth depend on (seed, tensor, step), what a rule draws by itself on its name as well.

    Args:
        layers: by name.
        update: what is due.
        allocation: says how many weights each layer has at a density.
        drop_fraction: f.
        rule: what is dropped and grown.
        seed: the run's.
        exchanges: whether weights are exchanged; None for what the kind of update says.
        schedule: shown to the rules.
        memory: what the rules keep.
        state_of: (layer name, name of a state) -> optimizer state in the layer's shape.
    """
    exchanges = update.kind == "exchange" if exchanges is None else exchanges
    looks_at_gradient = rule.needs_gradient(grows=True, drops=True)
    views = _Views(layers, update.step, seed, schedule, memory or Memory(), state_of, looks_at_gradient)
    with torch.no_grad():
        ties = {name: generator(seed, "topology", name, update.step) for name in layers}
        for_all = generator(seed, "topology", "all layers", update.step)
        before = {name: int(layer.mask.sum()) for name, layer in layers.items()}
        after = before if update.kind == "exchange" else allocation.counts(update.density)
        seen = views.of("drop")
        leaving = {name: max(0, before[name] - after[name]) for name in layers}
        if exchanges:
            wanted = {name: _to_exchange(rule.drop, layer, drop_fraction) for name, layer in seen.items()}
            leaving = {name: max(leaving[name], wanted[name]) for name in layers}
        if rule.drop.facts.across_layers and any(leaving.values()):
            staying = sum(before.values()) - sum(leaving.values())
            among = {name: layer.mask for name, layer in layers.items()}
            kept = choose_together(rule.drop, list(seen.values()), among, staying, for_all, least=1)
        else:
            kept = {
                name: keep(rule.drop, layer, before[name] - leaving[name], ties[name]) for name, layer in seen.items()
            }
        masks = _grown(rule.grow, views.of("grow"), kept, after, exchanges, ties, for_all)
        changes = []
        for name, layer in views.of("initial").items():
            masked, mask = layers[name], masks[name]
            grown, dropped = mask & ~layer.mask, layer.mask & ~mask
            blind = (layer.gradient[grown] == 0).sum() if rule.grow.facts.gradient != "never" else grown.sum()
            active_zeros = (layer.weight[layer.mask] == 0).sum()
            frozen = (~(grown | dropped)).all()
            changes.append(torch.stack([mask.sum(), dropped.sum(), grown.sum(), blind, active_zeros, frozen]))
            values = rule.initial.answer(replace(layer, candidates=grown)) if changes[-1][2] else None
            if values is not None:
                masked.weight[grown] = values[grown].to(masked.weight.dtype)
            masked.mask.copy_(mask)
    return MaskChange(*(int(total) for total in torch.stack(changes).sum(0)))


def _to_exchange(rule: Rule, layer: Layer, fraction: float) -> int:
    """How many weights of a layer an exchange drops: what the rule says, or the fraction."""
    own = rule.asked("dropped", layer)
    if own is None:
        return fraction_of(layer.active, fraction)
    if not isinstance(own, int) or not 0 <= own <= layer.active:
        raise EastError(
            f"{rule.entry.place}: dropped() must give a whole number from 0 to {layer.active}. {rule.entry.title} gave "
            f"{own!r} at step {layer.step}, layer {layer.name}."
        )
    return own


def _grown(
    rule: Rule,
    seen: Mapping[str, Layer],
    kept: Mapping[str, Tensor],
    after: Mapping[str, int],
    exchanges: bool,
    ties: Mapping[str, RandomBits],
    for_all: RandomBits,
) -> dict[str, Tensor]:
    """The masks once weights have grown: as many in all as `after` has, wherever they grow."""
    left = {name: int(mask.sum()) for name, mask in kept.items()}
    total = sum(after.values()) - sum(left.values())
    if total <= 0:
        return dict(kept)
    off = {name: ~mask for name, mask in kept.items()}
    if rule.facts.across_layers and exchanges:
        grown = choose_together(rule, list(seen.values()), off, total, for_all)
        return {name: mask | grown[name] for name, mask in kept.items()}
    missing = {name: max(0, after[name] - count) for name, count in left.items()}
    shares = rule.shares(list(seen.values())) if exchanges else None
    if shares is not None:
        room = {name: mask.numel() - left[name] for name, mask in kept.items()}
        missing = apportion(shares, room, total, least={name: int(left[name] == 0) for name in room})
    elif sum(missing.values()) != total:  # a drop rule that compares all layers has taken more elsewhere
        missing = apportion(missing, missing, total, least=dict.fromkeys(missing, 0))
    return {name: mask | grow(rule, seen[name], off[name], missing[name], ties[name]) for name, mask in kept.items()}


@dataclass(frozen=True)
class MaskUpdater:
    """Moves the masks of a network through a training."""

    layers: Mapping[str, MaskedLayer]
    allocation: Allocation
    timetable: Timetable
    seed: int
    memory: Memory = field(default_factory=Memory)

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
        """Whether step `step` (counted from 1) must leave dense gradients, for the masks or for a rule's memory.

        By RigL the masks change by them where weights grow. While the density falls weights are only dropped, by their
        magnitude.
        """
        rule = self._rule
        if rule is None:
            return False
        if rule.needs_every_gradient and step <= self.timetable.last_step:
            return True
        update = self.timetable.at(step)
        if update is None:
            return False
        exchanges = self.timetable.exchanges(update)
        if update.kind == "exchange":
            return rule.needs_gradient(grows=exchanges, drops=exchanges)
        counts = self.allocation.counts(update.density)
        active = {name: int(layer.mask.sum()) for name, layer in self.layers.items()}
        grows = exchanges or any(counts[name] > active[name] for name in active)
        drops = exchanges or any(counts[name] < active[name] for name in active)
        return rule.needs_gradient(grows=grows, drops=drops)

    def update(self, step: int, state_of: StateOf | None = None) -> tuple[MaskUpdate, MaskChange] | None:
        """Change the masks after step `step` (counted from 1) if the timetable says so; the gradients are that step's.

        Rules that follow the gradients of all steps see those of this one first.

        Args:
            step: the step that is done.
            state_of: (layer name, name of a state) -> optimizer state in the layer's shape.

        Returns:
            What was done, or None where nothing is due.
        """
        rule = self._rule
        if rule is None:
            return None
        self._observe(rule, step)
        update = self.timetable.at(step)
        if update is None:
            return None
        change = update_masks(
            self.layers,
            update,
            allocation=self.allocation,
            drop_fraction=self.schedule.drop_fraction(step),
            rule=rule,
            seed=self.seed,
            exchanges=self.timetable.exchanges(update),
            schedule=self.schedule,
            memory=self.memory,
            state_of=state_of,
        )
        return update, change

    def _observe(self, rule: Topology, step: int) -> None:
        observing = [(name, each) for name, each in rule.rules.items() if each.observes]
        if not observing or step > self.timetable.last_step:
            return
        views = _Views(self.layers, step, self.seed, self.schedule, self.memory, None, rule.needs_every_gradient)
        with torch.no_grad():
            for name, each in observing:
                for layer in views.of(name).values():
                    each.observe(layer)

    @cached_property
    def _rule(self) -> Topology | None:
        """How the masks move; None where they never do."""
        return topology_of(self.schedule.sparsity.topology)


def topology_of(chosen: str | TopologySpec) -> Topology | None:
    """The rules that a run's description names; None for masks that never change.

    Raises:
        EastError: one of them is in a plugin that is not loaded.
    """
    if isinstance(chosen, str):
        return TOPOLOGIES.get(chosen)
    parts = ((drop_rule, chosen.drop), (growth_rule, chosen.grow), (initial_values, chosen.initial))
    return Topology(*(Rule.of(kind, *named(choice)) for kind, choice in parts))


def nonzeros(layers: Mapping[str, MaskedLayer]) -> int:
    """Active weights of all masks together."""
    return sum(int(layer.mask.sum()) for layer in layers.values())
