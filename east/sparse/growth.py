"""Which weights a mask update grows: a score for each weight, of which the largest that are off grow."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from east.parameters import Fraction
from east.sparse.kinds import growth_rule

if TYPE_CHECKING:
    from torch import Tensor

    from east.sparse.view import Layer


@growth_rule(gradient="updates", paper="Evci et al., Rigging the Lottery (RigL), 2020; EAST, Section A.1")
def gradient(layer: "Layer") -> "Tensor":
    """The largest magnitudes of the dense gradient grow."""
    return layer.gradient.abs()


@growth_rule(name="random", paper="Mocanu et al., SET, 2018")
def at_random(layer: "Layer") -> None:
    """Every weight that is off is as likely to grow as any other."""


@growth_rule(gradient="steps", paper="Dettmers & Zettlemoyer, Sparse networks from scratch (SNFS), 2019")
class Momentum:
    """The largest magnitudes of the gradient's mean over past steps grow, in the layers where active ones are largest.

    The mean is exponential and dense: m = d m + (1 - d) g at every step, for which every step needs dense gradients. A
    layer's share of all the weights that grow is the mean of |m| over its active weights, divided by the sum over
    layers.

    Args:
        decay: d; the higher it is, the farther back the mean reaches.
        redistribute: whether layers get that share; otherwise each grows as many weights as it has lost.
    """

    def __init__(self, *, decay: Fraction = 0.9, redistribute: bool = True) -> None:
        self._decay, self._redistribute = decay, redistribute

    def observe(self, layer: "Layer") -> None:
        """Follow the gradient of a step."""
        # Three operations that each round once: one that multiplied and added would not everywhere give these bits.
        added = layer.gradient * (1 - self._decay)
        before = layer.memory.get("mean")
        layer.memory["mean"] = added if before is None else before * self._decay + added

    def __call__(self, layer: "Layer") -> "Tensor":
        """The size of the mean."""
        return layer.memory["mean"].abs()

    def shares(self, layers: "Sequence[Layer]") -> list[float] | None:
        """Each layer's claim to the weights that grow."""
        if not self._redistribute:
            return None
        return [_mean(layer.memory["mean"][layer.mask].abs()) for layer in layers]


def _mean(numbers: "Tensor") -> float:
    """The mean, summed exactly, so that it is the same on every machine."""
    return math.fsum(numbers.tolist()) / max(1, len(numbers))
