"""The active weights of masked layers as vectors, so that work on them costs what the non-zeros cost."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from east.sparse.layers import MaskedLayer


class ActiveWeights:
    """The active weights of one masked layer as a vector, in the order of the weight's memory.

    The layer's weight holds the truth: whoever changes `values` calls `write_back`. Off weights are never touched, so
    they stay exactly zero.

    Attributes:
        layer: the masked layer; its weight may have any memory format, such as channels-last.
        positions: ascending positions (n,) in the weight's memory, int64; None where every weight is active.
        values: the active weights (n,); where all are active, a view of the weight's memory.
        gradient: their gradient (n,) as an engine leaves it, or None where the loss does not depend on the layer;
            where all are active, it may be a view of the memory of `layer.weight.grad`.
    """

    positions: Tensor | None
    values: Tensor
    gradient: Tensor | None

    def __init__(self, layer: MaskedLayer) -> None:
        self.layer = layer
        self.positions = None
        self.read()

    def read(self) -> Tensor | None:
        """Take positions and values anew from mask and weight, after a change of the mask or of the memory format.

        The gradient is forgotten.

        Returns:
            The positions as they were, for `carry_over`.
        """
        old = self.positions
        # NumPy skips what is off ten times faster than `torch.nonzero`.
        found = np.flatnonzero(_memory(self.layer.mask, self.layer.weight).numpy(force=True))
        everything = len(found) == self.layer.weight.numel()
        self.positions = None if everything else torch.from_numpy(found).to(self.layer.weight.device)
        self.values = self.select(self.layer.weight)
        self.gradient = None
        return old

    def write_back(self) -> None:
        """Write the values into the layer's weight."""
        if self.positions is not None:
            _memory(self.layer.weight, self.layer.weight)[self.positions] = self.values

    def take_gradient(self) -> None:
        """Take the gradient from the dense one in `layer.weight.grad`; None stays None."""
        dense = self.layer.weight.grad
        self.gradient = None if dense is None else self.select(dense)

    def carry_over(self, vector: Tensor, old: Tensor | None) -> Tensor:
        """What belongs to the weights that are active now, such as their momentum.

        Args:
            vector: what belonged to the weights that were active before.
            old: the positions of those, as `read` returned them.

        Returns:
            A number for each weight that is active now: its old one, or zero if it was not active.
        """
        if self.positions is None and old is None:
            return vector
        if old is None:
            return vector[self.positions]
        carried = torch.zeros_like(self.values)
        if self.positions is None:
            carried[old] = vector
        else:
            # Both are in ascending order, so what they have in common is in the same order in each.
            carried[torch.isin(self.positions, old)] = vector[torch.isin(old, self.positions)]
        return carried

    def to_row_major(self, vector: Tensor) -> Tensor:
        """A vector in the order of `values`, sorted by row-major index in the weight, whatever its memory format."""
        if self.positions is None:
            return vector.as_strided(self.layer.weight.shape, self.layer.weight.stride()).flatten()
        return vector[self._row_major_order(self.positions)]

    def from_row_major(self, vector: Tensor) -> Tensor:
        """The inverse of `to_row_major`; the vector may be on another device."""
        weight = self.layer.weight
        if self.positions is None:
            return _memory(torch.empty_like(weight).copy_(vector.view(weight.shape)), weight)
        sorted_back = torch.empty_like(self.values)
        sorted_back[self._row_major_order(self.positions)] = vector.to(sorted_back.device)
        return sorted_back

    def select(self, tensor: Tensor) -> Tensor:
        """The elements of a tensor of the weight's shape where the weight is active."""
        memory = _memory(tensor, self.layer.weight)
        return memory if self.positions is None else memory[self.positions]

    def _row_major_order(self, positions: Tensor) -> Tensor:
        shape, strides = self.layer.weight.shape, self.layer.weight.stride()
        index = torch.zeros_like(positions)
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            # The stride of an axis of size 1 says nothing.
            if size > 1:
                index += positions // stride % size * math.prod(shape[axis + 1 :])
        return index.argsort()


def active_weights(layers: Mapping[str, MaskedLayer]) -> dict[str, ActiveWeights]:
    """The active weights of each masked layer, by its name."""
    return {name: ActiveWeights(layer) for name, layer in layers.items()}


def _memory(tensor: Tensor, weight: Tensor) -> Tensor:
    """The elements of a tensor of the weight's shape in the order of the weight's memory, without gaps: (numel,).

    It is a view if the tensor is laid out as the weight is, else a copy.
    """
    strides = zip(tensor.shape, tensor.stride(), weight.stride(), strict=True)
    if any(size > 1 and own != wanted for size, own, wanted in strides):
        tensor = torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)
    return tensor.detach().as_strided((tensor.numel(),), (1,))
