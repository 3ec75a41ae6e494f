"""What value a grown weight begins with. One that was dropped at the same update and grows at once keeps its own."""

import math
from typing import TYPE_CHECKING

from east.parameters import Positive
from east.sparse.kinds import initial_values

if TYPE_CHECKING:
    from torch import Tensor

    from east.sparse.view import Layer


@initial_values(paper="Evci et al., Rigging the Lottery (RigL), 2020; EAST")
def zero(layer: "Layer") -> None:
    """Zero, so that the network computes what it did before."""


@initial_values(paper="Mocanu et al., SET, 2018, as random as the weights of the start")
def uniform(layer: "Layer", *, scale: Positive = 1.0) -> "Tensor":
    """Uniform in ±`scale` times sqrt(6 / inputs), He's range for a dense layer.

    Args:
        layer: at the update.
        scale: what that range is multiplied by.
    """
    limit = scale * math.sqrt(6 / math.prod(layer.shape[1:]))
    drawn = (layer.random.uniform(math.prod(layer.shape)) * 2 - 1) * limit
    return drawn.view(layer.shape).to(layer.weight)


@initial_values(name="gradient", gradient="updates", paper="an ablation of Evci et al., RigL, 2020")
def against_gradient(layer: "Layer", *, rate: Positive = 0.1) -> "Tensor":
    """A step against the dense gradient.

    Args:
        layer: at the update.
        rate: what the gradient is multiplied by.
    """
    return layer.gradient * -rate
