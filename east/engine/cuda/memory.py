"""The memory of one batch size: what a network's units store, and the gradients at their outputs."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from east.engine.cpu.memory import Arena, padded
from east.engine.cpu.network import Activation, GradientKey, Network, Pool, Unit
from east.engine.cuda.lists import Source

Role = Literal["z", "u", "y", "gradient"]
"""What memory is for: a convolution's output, a DyReLU's input, a stored activation, a gradient at activations."""

Piece = tuple[Role, Activation | GradientKey]
"""A role, and whose it is: that of the activation behind the convolution, or of all activations with one key."""


class Buffer:
    """An activation: how it is read, and where the gradient at it goes.

    Attributes:
        source: how it is read.
        gradient: (C, H, W, N); others with the same key use the same memory. None for the images.
        has_gradient: whether something of this pass is in `gradient`.
    """

    def __init__(self, source: Source, gradient: Tensor | None) -> None:
        self.source = source
        self.gradient = gradient
        self.has_gradient = False

    @property
    def gradient_memory(self) -> Tensor:
        """The memory of the gradient, of an activation that has one."""
        if self.gradient is None:
            raise RuntimeError("there is no gradient at the images")
        return self.gradient


def take(network: Network, batch: int, arena: Arena) -> dict[Piece, Tensor]:
    """Tensors (C, H, W, N) from an arena that has room for `memory_needed`, by what they are for."""
    arena.reset()
    return {piece: arena.take(*shape, batch) for piece, shape in _pieces(network).items()}


def memory_needed(network: Network, batch: int, dtype: torch.dtype) -> int:
    """Numbers that `take` takes."""
    return sum(padded(math.prod(shape) * batch, dtype) for shape in _pieces(network).values())


def _pieces(network: Network) -> dict[Piece, tuple[int, int, int]]:
    """What is stored, with its shape (C, H, W).

    An activation that is a function of a convolution's output, channel by channel, is not stored: it is found again
    wherever it is read.
    """
    stored = set(_stored(network))
    shapes: dict[Piece, tuple[int, int, int]] = {("y", network.images): network.images.shape}
    for node in network.nodes:
        if isinstance(node, Unit):
            shapes["z", node.y] = node.y.shape
            if node.dynamic is not None:
                shapes["u", node.y] = node.y.shape
        if node.y in stored:
            shapes["y", node.y] = node.y.shape
        shapes["gradient", node.y.gradient_key] = node.y.shape
    return shapes


def _stored(network: Network) -> Iterator[Activation]:
    yield network.head.x
    for node in network.nodes:
        if isinstance(node, Pool):
            yield from (node.x, node.y)
        elif node.residual is not None or node.dynamic is not None:
            yield node.y
