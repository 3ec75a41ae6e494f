"""A network bound to memory for one batch size: what a pass through it does, whatever device executes its units."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from east.engine.base import GradientRequest
from east.engine.graph.memory import Buffer
from east.engine.graph.network import Network
from east.errors import EastError
from east.sparse.active import ActiveWeights

Execution = Literal["fused", "rows", "dense"]
"""How the convolution of a layer is executed.

`fused`: its non-zeros alone, channel by channel, with the batch norm behind it; each reads a whole plane. Best for few
non-zeros a channel.
`rows`: its non-zeros by themselves, row by row, with the rows that they read kept in the cache. Best for many. On a
CPU only, where it gives the same numbers as `fused`, to the last bit.
`dense`: all weights, by PyTorch. On a GPU only.
"""

Choose = Callable[[Network, Mapping[str, int]], dict[str, Execution]]
"""From a network and the non-zeros of its masked layers to the execution of every layer."""


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
    """One forward pass and, where something is learnt, its backward pass.

    Attributes:
        training: batch statistics, and running ones updated.
        learns: whether a backward pass follows.
        request: what the backward pass must find.
        layers: what it has found, by name of the masked layer.
    """

    training: bool
    learns: bool = False
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


class BoundNode(ABC):
    """A unit or a pool bound to memory."""

    @abstractmethod
    def forward(self, this: Pass) -> None:
        """Write the output and, in training, update the running statistics."""

    @abstractmethod
    def backward(self, this: Pass) -> None:
        """Leave the gradients of the parameters, and what the nodes before this one need."""


class BoundHead(ABC):
    """The classifier bound to memory: means over positions, a linear layer, and the loss behind it."""

    @abstractmethod
    def forward(self) -> Tensor:
        """Logits (N, classes) of the last activation."""

    def loss(self, logits: Tensor, criterion: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The criterion's value, 0-d, and its gradient at the logits (N, classes) as `backward` takes it."""
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            loss = criterion(logits)
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.detach(), gradient

    @abstractmethod
    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient at the logits to those of the weights and at the last activation."""


class Program:
    """A network bound to memory for one batch size."""

    def __init__(
        self,
        network: Network,
        take_images: Callable[[Tensor], None],
        nodes: Sequence[BoundNode],
        head: BoundHead,
        buffers: Iterable[Buffer],
    ) -> None:
        self.network, self.nodes, self.head, self.buffers = network, nodes, head, list(buffers)
        self._take_images = take_images
        normed = [(unit.y, unit.norm) for unit in network.units if unit.norm is not None]
        counters = (norm.num_batches_tracked for _, norm in normed)
        self._batches_seen = [counter for counter in counters if counter is not None]
        self._fewest_positions = min((y.height * y.width for y, _ in normed), default=2)

    def forward(self, images: Tensor, this: Pass) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W).

        Raises:
            EastError: a channel has a single number, so that there are no batch statistics to train with.
        """
        if this.training:
            if len(images) * self._fewest_positions == 1:
                raise EastError(
                    "training needs more than one number a channel for batch norm: take a batch of 2 or more."
                )
            if self._batches_seen:
                torch._foreach_add_(self._batches_seen, 1)
        self._take_images(images)
        for node in self.nodes:
            node.forward(this)
        return self.head.forward()

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient at the logits to those of all parameters."""
        for buffer in self.buffers:
            buffer.has_gradient = False
        self.head.backward(gradient, this)
        for node in reversed(self.nodes):
            node.backward(this)
