"""Which active weights a mask update drops: a score for each weight, of which the largest stay."""

from typing import TYPE_CHECKING

from east.parameters import NonNegative, Positive
from east.sparse.kinds import drop_rule

if TYPE_CHECKING:
    from torch import Tensor

    from east.sparse.view import Layer


@drop_rule(paper="Evci et al., Rigging the Lottery (RigL), 2020; EAST, Section A.1")
def magnitude(layer: "Layer") -> "Tensor":
    """The smallest magnitudes of a layer are dropped."""
    return layer.weight.abs()


@drop_rule(across_layers=True, paper="Zhu & Gupta, 2017, over all layers together")
def global_magnitude(layer: "Layer") -> "Tensor":
    """The smallest magnitudes of all layers together are dropped; every layer keeps a weight."""
    return layer.weight.abs()


@drop_rule(paper="Mocanu et al., Scalable training with adaptive sparse connectivity (SET), 2018")
def signed_magnitude(layer: "Layer") -> "Tensor":
    """The smallest positive and the largest negative weights are dropped, the same share of either sign (SET).

    A weight's score is the share of the active weights of its sign that are not farther from zero, itself included, so
    that equal weights have equal scores. Zeros count as positive.
    """
    import torch

    scores = torch.zeros_like(layer.weight)
    for side in (layer.mask & (layer.weight >= 0), layer.mask & (layer.weight < 0)):
        sizes = layer.weight[side].abs()
        ordered = sizes.sort().values
        scores[side] = (torch.searchsorted(ordered, sizes) + 1).to(scores.dtype) / max(1, len(sizes))
    return scores


@drop_rule
class Threshold:
    """Active weights of a magnitude below a threshold are dropped, however many they are; they are grown elsewhere.

    While the density falls, the smallest magnitudes go, as many as it takes.

    Args:
        below: the threshold.
    """

    def __init__(self, *, below: Positive = 1e-3) -> None:
        self._below = below

    def __call__(self, layer: "Layer") -> "Tensor":
        """Magnitudes."""
        return layer.weight.abs()

    def dropped(self, layer: "Layer") -> int:
        """How many an exchange drops."""
        return int((layer.weight[layer.mask].abs() < self._below).sum())


@drop_rule(gradient="updates", paper="Yuan et al., MEST, 2021: Memory-economic sparse training")
def magnitude_and_gradient(layer: "Layer", *, gradient_weight: NonNegative = 1.0) -> "Tensor":
    """The smallest |w| + λ |∂L/∂w| are dropped (MEST).

    Args:
        layer: at the update.
        gradient_weight: λ.
    """
    return layer.weight.abs() + layer.gradient.abs() * gradient_weight
