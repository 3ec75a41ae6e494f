"""Memory of activations, and what one pass through the network collects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from east.engine.base import GradientRequest
from east.engine.cpu import kernels as k
from east.engine.cpu.index import NonzeroIndex
from east.sparse.active import ActiveWeights

Execution = Literal["fused", "rows"]
"""How the convolution of a layer is executed. Both give the same numbers, to the last bit.

`fused`: channel by channel, with batch norm; each non-zero reads a whole plane. Best for few non-zeros a channel.
`rows`: by itself, row by row, with the rows that it reads kept in the cache. Best for many.
"""


@dataclass(frozen=True, eq=False)
class Layer:
    """A masked layer as it is executed.

    Attributes:
        weights: its active weights.
        execution: how.
        index: where its non-zeros are.
    """

    weights: ActiveWeights
    execution: Execution
    index: NonzeroIndex


Layers = Mapping[str, Layer]


class Buffer:
    """The memory of an activation.

    Attributes:
        data: (C, G, H, W, 32), G groups of images. In the backward pass it takes the gradient at the
            convolution that wrote it.
        kind: (C,) uint8, how each channel is kept.
        constants: (C,) the values of constant channels.
        gradient: (C, G, H, W, 32), the gradient at the activation; others of its shape use the same memory.
        has_gradient: whether something of this pass is in `gradient`.
    """

    def __init__(self, data: Tensor, gradient: Tensor | None) -> None:
        self.data = data
        self.kind = torch.zeros(len(data), dtype=torch.uint8)
        self.constants = torch.zeros(len(data), dtype=data.dtype)
        self.gradient = gradient
        self.has_gradient = False

    @property
    def planes(self) -> k.Planes:
        """As kernels take it."""
        return k.Planes(k.address(self.data), k.address(self.kind), k.address(self.constants))


@dataclass
class LayerGradients:
    """Gradients of one masked layer, summed over the places where its weight is used.

    Attributes:
        values: of the active weights.
        dense: of all weights, where they are asked for or come for free.
        products: (in, probes, taps) in float64, the dense gradient contracted with signs over output channels.
    """

    values: Tensor | None = None
    dense: Tensor | None = None
    products: Tensor | None = None


@dataclass
class Pass:
    """One forward pass and, in training, its backward pass.

    Attributes:
        training: batch statistics, and running ones updated.
        request: what the backward pass must find.
        layers: what it has found, by name of the masked layer.
    """

    training: bool
    request: GradientRequest = field(default_factory=GradientRequest)
    layers: dict[str, LayerGradients] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """Whether the gradients of off weights count, so that no channel may be left out."""
        return self.request.dense or self.request.signs is not None

    def add(self, layer: str, scale: Tensor | None, **found: Tensor | None) -> None:
        """Add the gradients of one use of a layer, times its scale."""
        gradients = self.layers.setdefault(layer, LayerGradients())
        for name, gradient in found.items():
            if gradient is None:
                continue
            so_far = getattr(gradients, name)
            scaled = gradient if scale is None else gradient * scale.detach()
            setattr(gradients, name, scaled if so_far is None else so_far + scaled)

    def hand_over(self, active: Mapping[str, ActiveWeights]) -> None:
        """Leave the gradients of masked layers where they are looked for."""
        for name, found in self.layers.items():
            active[name].gradient = found.values
            if self.request.dense and found.dense is not None:
                weight = active[name].layer.weight
                weight.grad = found.dense.view_as(weight)

    @property
    def products(self) -> list[Tensor]:
        """The dense gradients of all layers contracted with signs, (in, probes, taps) each; none without signs."""
        return [found.products for found in self.layers.values() if found.products is not None]
