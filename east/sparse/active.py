"""The active weights of masked layers as vectors, so that work on them costs only what the non-zeros cost."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from east.sparse.layers import MaskedLayer

BLOCK = 16
"""A capacity is a multiple of this, but at most the size of the weight.

PyTorch's fused steps compute vectors of at most 16 numbers at once, and the remainder with other instructions.
"""

ALIGNMENT = 64
"""Weights in joint memory start at multiples of this many numbers: 256 bytes, as if allocated separately."""


class ActiveWeights:
    """The active weights of one masked layer as a vector, in the order of the weight's memory.

    The layer's weight is authoritative: after changing `values`, call `write_back`. Off weights are never touched, so
    they stay exactly zero.

    With a capacity, positions and values keep their memory as long as the active weights fit, so that a captured CUDA
    graph stays valid when masks change. The spare entries point at some off weight and hold an exact zero, whose
    gradient is zero too, so writing them back changes nothing.

    Args:
        layer: the masked layer; its weight may have any memory format, such as channels-last.
        capacity: how many active weights to leave room for; None for vectors of exact size, reallocated whenever the
            mask changes.

    Attributes:
        layer: the masked layer.
        count: active weights, n.
        positions: positions (n,) in the weight's memory, ascending, int64; None if every weight is active. With a
            capacity, those of the padding follow, and it is None only while the mask has always been full.
        values: the active weights (n,), with a capacity followed by zeros; without positions, a view of the weight's
            memory.
        padding: with a capacity, a bool for each position: whether it is padding; else None.
        gradient: their gradient as an engine leaves it, as long as the values, exactly zero at the padding; None if the
            loss does not depend on the layer. Without positions, it may be a view of the memory of
            `layer.weight.grad`.
        version: increases when positions and values get new memory.
    """

    count: int
    positions: Tensor | None
    values: Tensor
    padding: Tensor | None
    gradient: Tensor | None
    version: int

    def __init__(self, layer: MaskedLayer, capacity: int | None = None) -> None:
        self.layer = layer
        self.positions = None
        self.padding = None
        self.version = 0
        self._capacity = None if capacity is None else self._whole_blocks(capacity)
        self.read()

    @property
    def is_static(self) -> bool:
        """Whether memory is kept when the mask changes."""
        return self._capacity is not None

    @property
    def is_full(self) -> bool:
        """Whether every weight is active."""
        return self.count == self.layer.weight.numel()

    def read(self) -> Tensor | None:
        """Read positions and values from mask and weight, after a change of the mask or of the memory format.

        The gradient is discarded.

        Returns:
            The previous positions of the active weights, for `carry_over`.
        """
        old = None if self.positions is None else self.positions[: self.count]
        found = self._find()
        if self._capacity is None:
            self.positions = None if len(found) == self.layer.weight.numel() else found
            self.version += 1
        else:
            # A copy, because it is a view of memory that is about to change.
            old = None if old is None else old.clone()
            self._place(found, self._capacity)
        self.count = len(found)
        selected = self.select(self.layer.weight)
        if self.is_static and self.positions is not None:
            self.values.copy_(selected)
        else:
            self.values = selected
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
        """Carry per-weight state, such as momentum, over a change of the mask.

        Args:
            vector: a number for each previously active weight, without padding.
            old: their positions, as returned by `read`.

        Returns:
            A number for each active weight: its old one, or zero if it was not active.
        """
        new = None if self.positions is None else self.positions[: self.count]
        if new is None and old is None:
            return vector
        if old is None:
            return vector[new]
        carried = vector.new_zeros(self.count)
        if new is None:
            carried[old] = vector
        else:
            # Both are ascending, so what they have in common is in the same order in each.
            carried[torch.isin(new, old)] = vector[torch.isin(old, new)]
        return carried

    def to_row_major(self, vector: Tensor) -> Tensor:
        """A vector in the order of `values`, without padding, reordered by row-major index in the weight.

        The result does not depend on the weight's memory format.
        """
        if self.positions is None:
            return vector.as_strided(self.layer.weight.shape, self.layer.weight.stride()).flatten()
        return vector[self.row_major_index(self.positions[: self.count]).argsort()]

    def from_row_major(self, vector: Tensor) -> Tensor:
        """The inverse of `to_row_major`; the vector may be on another device."""
        weight = self.layer.weight
        if self.positions is None:
            return _memory(torch.empty_like(weight).copy_(vector.view(weight.shape)), weight)
        sorted_back = torch.empty_like(self.values[: self.count])
        order = self.row_major_index(self.positions[: self.count]).argsort()
        sorted_back[order] = vector.to(sorted_back.device)
        return sorted_back

    def scatter(self, vector: Tensor) -> Tensor:
        """A tensor of the weight's shape with a number for each active weight and zeros elsewhere.

        The vector is in the order of `values`; what follows the active weights is left out.
        """
        found = torch.zeros_like(self.layer.weight)
        memory = _memory(found, self.layer.weight)
        if self.positions is None:
            memory.copy_(vector.as_strided((memory.numel(),), (1,)))
        else:
            memory[self.positions[: self.count]] = vector[: self.count]
        return found

    def select(self, tensor: Tensor) -> Tensor:
        """The elements at the active weights of a tensor of the weight's shape, with zeros at the padding."""
        gathered = self.gather(tensor)
        # Not `torch.where`, which waits on a GPU until its scalar has been copied there.
        return gathered if self.padding is None else gathered.masked_fill_(self.padding, 0.0)

    def gather(self, tensor: Tensor) -> Tensor:
        """The elements at the active weights of a tensor of the weight's shape, with anything at the padding."""
        memory = _memory(tensor, self.layer.weight)
        return memory if self.positions is None else memory[self.positions]

    def _find(self) -> Tensor:
        """The positions of the active weights."""
        mask = _memory(self.layer.mask, self.layer.weight)
        if mask.device.type == "cpu":
            # NumPy is ten times as fast as `torch.nonzero` here.
            return torch.from_numpy(np.flatnonzero(mask.numpy()))
        return mask.nonzero().flatten()

    def _place(self, found: Tensor, size: int) -> None:
        """Put positions into the memory there is, or into larger memory if they do not fit."""
        needed = len(found)
        if self.positions is None and needed == self.layer.weight.numel():
            return  # the weight itself serves as long as all of it is active
        if needed > size:
            size = self._capacity = self._whole_blocks(max(needed, 2 * size))
        positions, padding = self.positions, self.padding
        if positions is None or padding is None or len(positions) != size:
            positions, padding = found.new_empty(size), found.new_empty(size, dtype=torch.bool)
            self.positions, self.padding = positions, padding
            self.values = self.layer.weight.new_empty(size)
            self.version += 1
        positions[:needed] = found
        padding[:needed] = False
        # The first position missing from the ascending ones.
        positions[needed:] = (found == torch.arange(needed, device=found.device)).sum()
        padding[needed:] = True

    def _whole_blocks(self, capacity: int) -> int:
        return min(-(-capacity // BLOCK) * BLOCK, self.layer.weight.numel())

    def row_major_index(self, positions: Tensor) -> Tensor:
        """The row-major indices in the weight of positions in its memory."""
        shape, strides = self.layer.weight.shape, self.layer.weight.stride()
        index = torch.zeros_like(positions)
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            # The stride of an axis of size 1 is arbitrary, and what is added for it is 0.
            index += positions // stride % size * math.prod(shape[axis + 1 :])
        return index


class JointWeights:
    """The weights of several masked layers side by side in one memory, so that one operation writes them all back.

    The weights are moved there, each in its current layout, and the active weights are read again.

    Args:
        active: the active weights of the layers, all with a capacity, of one dtype and on one device.
    """

    def __init__(self, active: Iterable[ActiveWeights]) -> None:
        self._active = list(active)
        weights = [each.layer.weight for each in self._active]
        self._starts = [0]
        for weight in weights:
            self._starts.append(self._starts[-1] + -(-weight.numel() // ALIGNMENT) * ALIGNMENT)
        self._memory = weights[0].new_zeros(self._starts[-1])
        for each, weight, start in zip(self._active, weights, self._starts, strict=False):
            place = self._memory.as_strided(weight.shape, weight.stride(), start)
            weight.data = place.copy_(weight.detach())
            each.read()
        self._positions = self._find()

    def masks_changed(self) -> None:
        """Update after the active weights have been read again, in the same memory as long as they keep theirs."""
        found = self._find()
        if found.shape == self._positions.shape:
            self._positions.copy_(found)
        else:
            self._positions = found

    def write_back(self) -> None:
        """Write all values into the layers' weights."""
        values = [each.values for each in self._active if each.positions is not None]
        if values:
            self._memory[self._positions] = torch.cat(values)

    def _find(self) -> Tensor:
        places = zip(self._active, self._starts, strict=False)
        found = [each.positions + start for each, start in places if each.positions is not None]
        return torch.cat([self._memory.new_empty(0, dtype=torch.int64), *found])


def active_weights(
    layers: Mapping[str, MaskedLayer], capacities: Mapping[str, int] | None = None
) -> dict[str, ActiveWeights]:
    """The active weights of each masked layer, by its name.

    Each has room for as many as `capacities` says; without capacities there is no padding.
    """
    return {
        name: ActiveWeights(layer, None if capacities is None else capacities[name]) for name, layer in layers.items()
    }


def take_gradients(active: Iterable[ActiveWeights]) -> None:
    """Call `take_gradient` for several layers at once, in few operations on a GPU."""
    padded = []
    for weights in active:
        if weights.padding is None or weights.layer.weight.grad is None:
            weights.take_gradient()
        else:
            padded.append((weights, weights.padding, weights.gather(weights.layer.weight.grad)))
    if padded:
        owners, paddings, gathered = zip(*padded, strict=True)
        joint = torch.cat(gathered).masked_fill_(torch.cat(paddings), 0.0)
        for weights, gradient in zip(owners, torch.split(joint, [len(part) for part in gathered]), strict=True):
            weights.gradient = gradient


def _memory(tensor: Tensor, weight: Tensor) -> Tensor:
    """The elements of a tensor of the weight's shape in the order of the weight's memory, without gaps: (numel,).

    A view if the tensor has the weight's layout, else a copy.
    """
    strides = zip(tensor.shape, tensor.stride(), weight.stride(), strict=True)
    if any(size > 1 and own != wanted for size, own, wanted in strides):
        tensor = torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)
    return tensor.detach().as_strided((tensor.numel(),), (1,))
