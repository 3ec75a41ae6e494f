"""Which weights leave a mask and which enter it: rules give scores, and what is here makes exact counts of them.

Only active weights compete to stay and only inactive ones to grow. Ties are broken at random: at the paper's density
most gradients are exactly zero, so breaking ties by index would grow the first filters. Both zeros are equal, infinity
is the largest score, and all NaNs rank equal below every number, so no score can break a count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from east.errors import EastError
from east.plugins import blamed
from east.registry import Entry, Kind
from east.seeding import RandomBits
from east.sparse import drop, growth, initial
from east.sparse.kinds import RuleFacts, drop_rule, growth_rule, initial_values
from east.sparse.view import Layer

__all__ = ["TOPOLOGIES", "Rule", "Topology", "drop", "drop_and_grow", "growth", "initial"]


class _Observing(Protocol):
    def observe(self, layer: Layer) -> None: ...


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule with its parameters.

    Attributes:
        entry: what is registered.
        call: the function, or an object of the class.
    """

    entry: Entry
    call: Callable[[Layer], Tensor | None]

    @classmethod
    def of(
        cls, kind: Kind, name: str, parameters: Mapping[str, Any] | None = None, plugin: str | None = None
    ) -> "Rule":
        """A registered rule.

        Raises:
            EastError: there is none, or a parameter is not as it wants it.
        """
        return cls.bound(kind.find(name, plugin), parameters)

    @classmethod
    def bound(cls, entry: Entry, parameters: Mapping[str, Any] | None = None) -> "Rule":
        """A rule from its entry.

        Raises:
            EastError: a parameter is not as it wants it.
        """
        try:
            with blamed(entry, "when it was made"):
                return cls(entry, entry.bind(parameters or {}))
        except ValueError as error:
            raise EastError(f"{entry.place}: {error}.") from None

    @property
    def facts(self) -> RuleFacts:
        """What it declares."""
        return cast(RuleFacts, self.entry.facts)

    @property
    def observes(self) -> bool:
        """Whether it follows the gradients of all steps."""
        return hasattr(self.call, "observe")

    def observe(self, layer: Layer) -> None:
        """Let it follow a step."""
        with self._blamed(layer):
            cast(_Observing, self.call).observe(layer)

    def answer(self, layer: Layer) -> Tensor | None:
        """What it says of a layer: scores or a mask in its shape, or None where all weights are equal to it.

        Raises:
            EastError: it is something else; with the rule's file and line.
        """
        with self._blamed(layer):
            found = self.call(layer)
        if found is None:
            return None
        if not isinstance(found, Tensor) or found.shape != layer.weight.shape:
            given = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise self._wrong(layer, f"gave {given}")
        return found.detach().to(layer.weight.device)

    def asked(self, name: str, layer: Layer) -> Any:
        """What a further method of the rule says of a layer; None where it has none."""
        method = getattr(self.call, name, None)
        if method is None:
            return None
        with self._blamed(layer):
            return method(layer)

    def shares(self, layers: Sequence[Layer]) -> dict[str, float] | None:
        """Each layer's claim to the weights that grow; None where each grows what it has lost.

        Raises:
            EastError: what the rule says is no claim.
        """
        method = getattr(self.call, "shares", None)
        if method is None:
            return None
        with self._blamed(layers[0], "for all layers"):
            found = method(layers)
        if found is None:
            return None
        shares = [float(share) for share in found]
        if len(shares) != len(layers) or not all(math.isfinite(share) and share >= 0 for share in shares):
            wanted = f"shares() must give {len(layers)} numbers that are finite and at least 0, one for each layer"
            raise EastError(
                f"{self.entry.place}: {wanted}. {self.entry.title} gave {shares[:4]} at step {layers[0].step}."
            )
        return {layer.name: share for layer, share in zip(layers, shares, strict=True)}

    def _blamed(self, layer: Layer, where: str = "") -> Any:
        return blamed(self.entry, f"at step {layer.step}, {where or f'layer {layer.name}'}")

    def _wrong(self, layer: Layer, what: str) -> EastError:
        wanted = f"it must give {self.entry.kind.gives}, here {tuple(layer.shape)}"
        wanted += f" with {layer.count} set" if layer.count else ""
        return EastError(
            f"{self.entry.place}: {self.entry.title} {what} at step {layer.step}, layer {layer.name}; {wanted}."
        )

    def wrong_count(self, layer: Layer, chosen: Tensor, extra: int) -> EastError:
        """What is said of a mask that has another number of weights than asked for, or others than it may have."""
        strange = f", {extra} of them no candidates" if extra else ""
        return self._wrong(layer, f"gave a mask of {int(chosen.sum())}{strange}")


@dataclass(frozen=True)
class Topology:
    """How the masks of a method move.

    Attributes:
        drop: which active weights stay.
        grow: which inactive weights enter.
        initial: what value these begin with.
    """

    drop: Rule
    grow: Rule
    initial: Rule

    @classmethod
    def of(cls, drop: str = "magnitude", grow: str = "gradient", initial: str = "zero") -> "Topology":
        """Rules of the project by name, with their defaults."""
        return cls(Rule.of(drop_rule, drop), Rule.of(growth_rule, grow), Rule.of(initial_values, initial))

    @property
    def rules(self) -> dict[str, Rule]:
        """All of them, by what they do."""
        return {"drop": self.drop, "grow": self.grow, "initial": self.initial}

    @property
    def needs_every_gradient(self) -> bool:
        """Whether each step must leave the dense gradient behind."""
        return any(rule.facts.gradient == "steps" for rule in self.rules.values())

    def needs_gradient(self, *, grows: bool, drops: bool) -> bool:
        """Whether an update that grows or drops weights needs the dense gradient."""
        looking = {name for name, rule in self.rules.items() if rule.facts.gradient != "never"}
        return (grows and bool(looking & {"grow", "initial"})) or (drops and "drop" in looking)


TOPOLOGIES: dict[str, Topology] = {"rigl": Topology.of(), "set": Topology.of(grow="random")}
"""Topology name in the config -> rules. There are none for `fixed`: those masks never change."""


def drop_and_grow(
    weight: Tensor,
    gradient: Tensor,
    mask: Tensor,
    fraction: float,
    generator: RandomBits,
    rule: Topology = TOPOLOGIES["rigl"],
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
    layer = Layer("tensor", weight, gradient, mask)
    dropped = fraction_of(layer.active, fraction)
    kept = keep(rule.drop, layer, layer.active - dropped, generator)
    return kept | grow(rule.grow, layer, ~kept, dropped, generator)


def fraction_of(active: int, fraction: float) -> int:
    """How many of so many weights a drop fraction drops: ceil(fraction * n)."""
    return min(active, math.ceil(fraction * active))


def keep(rule: Rule, layer: Layer, count: int, ties: RandomBits) -> Tensor:
    """The mask of the `count` active weights of a layer that a drop rule keeps; active zeros compete like any other."""
    return _chosen(rule, layer, layer.mask, count, ties)


def grow(rule: Rule, layer: Layer, candidates: Tensor, count: int, ties: RandomBits) -> Tensor:
    """The mask of the `count` candidates that a growth rule grows."""
    return _chosen(rule, layer, candidates, count, ties)


def choose_together(
    rule: Rule, layers: Sequence[Layer], among: Mapping[str, Tensor], count: int, ties: RandomBits, *, least: int = 0
) -> dict[str, Tensor]:
    """The masks of the `count` weights of largest score over all layers.

    Args:
        rule: gives the scores.
        layers: all of them.
        among: layer name -> mask of its candidates.
        count: how many.
        ties: breaks ties.
        least: of each layer, so many are chosen whatever their score, as far as it has candidates.
    """
    scores, positions, certain = [], [], []
    for layer in layers:
        view = replace(layer, candidates=among[layer.name])
        answer = rule.answer(view)
        if answer is not None and answer.dtype == torch.bool:
            raise EastError(
                f"{rule.entry.place}: {rule.entry.title} compares all layers (across_layers), so it must give scores, "
                f"and gave a mask at step {layer.step}, layer {layer.name}."
            )
        positions.append(among[layer.name].flatten().nonzero().squeeze(1))
        values = torch.zeros_like(layer.weight) if answer is None else answer.to(layer.weight.dtype)
        found = values.flatten()[positions[-1]]
        scores.append(found)
        certain.append(highest(found, torch.ones_like(found, dtype=torch.bool), least, ties))
    joint, sure = torch.cat(scores), torch.cat(certain)
    chosen = sure | highest(joint, ~sure, count - int(sure.sum()), ties)
    masks = {}
    for layer, places, part in zip(
        layers, positions, torch.split(chosen, [len(found) for found in scores]), strict=True
    ):
        masks[layer.name] = _mask_of(places[part], layer.mask)
    return masks


def highest(values: Tensor, among: Tensor, count: int, ties: RandomBits) -> Tensor:
    """The mask of the `count` largest values among the positions of `among`, ties drawn at random.

    The threshold is the value of rank `count`. All above it are taken, and what is missing is drawn among those at it,
    in the order of their indices, whatever the tensor's layout and device.
    """
    positions = among.flatten().nonzero().squeeze(1)
    if count >= len(positions):
        return among.clone()
    if count <= 0:
        return torch.zeros_like(among)
    scores = _ranked(values.flatten()[positions])
    threshold = scores.topk(count, sorted=False).values.min()
    above = positions[scores > threshold]
    tied = positions[scores == threshold]
    lucky = tied[_choose(len(tied), count - len(above), ties, values.device)]
    return _mask_of(torch.cat((above, lucky)), among)


def _chosen(rule: Rule, layer: Layer, among: Tensor, count: int, ties: RandomBits) -> Tensor:
    """The mask of `count` positions of `among` that a rule chooses, as it must be."""
    size = int(among.sum())
    if count >= size:
        return among.clone()
    if count <= 0:
        return torch.zeros_like(among)
    view = replace(layer, count=count, candidates=among)
    answer = rule.answer(view)
    if answer is None:
        positions = among.flatten().nonzero().squeeze(1)
        return _mask_of(positions[_choose(size, count, ties, among.device)], among)
    if answer.dtype != torch.bool:
        return highest(answer, among, count, ties)
    extra = int((answer & ~among).sum())
    if extra or int(answer.sum()) != count:
        raise rule.wrong_count(view, answer, extra)
    return answer


def _ranked(scores: Tensor) -> Tensor:
    """Scores among which nothing is no number."""
    kept = scores if scores.is_floating_point() else scores.double()
    return kept.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def _choose(population: int, count: int, ties: RandomBits, device: torch.device) -> Tensor:
    """`count` of the numbers below `population`, drawn on the CPU so that every device draws the same ones."""
    return ties.choose(population, count).to(device)


def _mask_of(positions: Tensor, like: Tensor) -> Tensor:
    mask = like.new_zeros(like.numel())
    mask[positions] = True
    return mask.view(like.shape)
