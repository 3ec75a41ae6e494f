"""What of a network is stored for the compiled kernels: activations, outputs of convolutions, and gradients."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from east.engine.cpu import bindings as k
from east.engine.graph.index import NonzeroIndex, Weights
from east.engine.graph.memory import Buffer, Piece
from east.engine.graph.network import Activation, Network, Unit
from east.engine.graph.program import Execution

Shapes = dict[Piece, tuple[int, int, int]]
"""What is stored, with its shape (C, H, W)."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A masked layer, or the identity, as it is executed."""

    weights: Weights
    execution: Execution
    index: NonzeroIndex


Layers = Mapping[str, Layer]


class PlaneBuffer(Buffer):
    """The memory of an activation.

    Attributes:
        stored: (C, G, H, W, 32), G groups of images; None where its readers find it from the convolution before it. In
            the backward pass a fused unit leaves the gradient at its convolution there.
        kind: (C,) uint8, how each channel is kept.
        constants: (C,) the values of constant channels.
        gradient: (C, G, H, W, 32), the gradient at the activation; others of its shape use the same memory.
        source: how it is read row by row.
        producer: of an activation that its readers find, what the last of them needs to finish the gradient there.
    """

    def __init__(
        self, activation: Activation, stored: Tensor | None, gradient: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__(gradient)
        self.stored = stored
        self.kind = torch.zeros(activation.channels, dtype=torch.uint8)
        self.constants = torch.zeros(activation.channels, dtype=k.value_dtype(dtype))
        self.source = k.RowSource(stored)
        self.producer = k.Producer()

    @property
    def data(self) -> Tensor:
        """The memory of an activation that is stored."""
        if self.stored is None:
            raise RuntimeError("this activation is not stored")
        return self.stored

    @property
    def planes(self) -> k.Planes:
        """As kernels take whole planes of it."""
        return k.Planes(self.data, self.kind, self.constants)


class Storage:
    """What is stored of a network.

    An activation is either stored by the unit that writes it, or found by those that read it: from the output of the
    convolution, which is stored. If an activation is lasting, the first of its readers stores it on the way. The
    gradient at such an activation is finished by its readers as well.
    """

    def __init__(self, network: Network, layers: Layers) -> None:
        self.network, self.layers = network, layers
        self._added_by = {unit.residual: unit for unit in network.units if unit.residual is not None}
        self._written = {node.y for node in network.nodes}

    def is_found_by_readers(self, activation: Activation) -> bool:
        """Whether its readers find an activation."""
        return self._is_convolution_stored(activation) and self._are_readers_executed(activation, "rows")

    def is_added_unstored(self, activation: Activation) -> bool:
        """Whether an activation is a shortcut's output that is found where it is added."""
        adds = self._added_by.get(activation)
        producer = activation.producer
        if adds is None or not isinstance(producer, Unit) or producer.rectify or producer.residual is not None:
            return False
        if activation.readers:
            return False
        return self._is_convolution_stored(activation) and self._is(adds, "rows")

    def is_gathered(self, activation: Activation) -> bool:
        """Whether the unit that wrote an activation gathers the gradient at it, from what its readers left."""
        producer = activation.producer
        unit = isinstance(producer, Unit) and producer.dynamic is None
        return unit and all(self._is(reader, "fused") for reader in activation.readers)

    def shapes(self) -> Shapes:
        """Everything that is stored."""
        found: Shapes = {}
        for node in self.network.nodes:
            of_rows = isinstance(node, Unit) and self._is(node, "rows")
            if node.y.lasting or of_rows or not self.is_gathered(node.y):
                found[self._gradient_piece(node.y)] = node.y.shape
        for activation in (self.network.images, *(node.y for node in self.network.nodes)):
            unstored = self.is_found_by_readers(activation) and not activation.lasting
            if not unstored and not self.is_added_unstored(activation):
                found["y", activation] = activation.shape
        for unit in self.network.units:
            if self._is(unit, "rows"):
                found["z", unit.y] = unit.y.shape
            if unit.dynamic is not None:
                found["u", unit.y] = unit.y.shape
        return found

    def buffer(self, activation: Activation, memory: Mapping[Piece, Tensor], dtype: torch.dtype) -> PlaneBuffer:
        """The memory of an activation, (C, G, H, W, 32) for each of `shapes`."""
        gradient = memory.get(self._gradient_piece(activation)) if activation in self._written else None
        return PlaneBuffer(activation, memory.get(("y", activation)), gradient, dtype)

    def _gradient_piece(self, activation: Activation) -> Piece:
        return "gradient", activation.gradient_key

    def _is_convolution_stored(self, activation: Activation) -> bool:
        producer = activation.producer
        return isinstance(producer, Unit) and producer.dynamic is None and self._is(producer, "rows")

    def _are_readers_executed(self, activation: Activation, execution: Execution) -> bool:
        return bool(activation.readers) and all(self._is(reader, execution) for reader in activation.readers)

    def _is(self, unit: Unit, execution: Execution) -> bool:
        return self.layers[unit.layer].execution == execution
