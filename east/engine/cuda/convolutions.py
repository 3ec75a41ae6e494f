"""The ways to execute one use of a masked convolution: its non-zeros alone, or by PyTorch with all weights."""

from abc import ABC, abstractmethod
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from east.engine.cuda import backward, forward
from east.engine.cuda.operands import Consumer, Norm, Source, SourceBuffer
from east.engine.cuda.sketch import sketched
from east.engine.cuda.tiles import parts_of
from east.engine.formats import as_convolved
from east.engine.graph.index import Grouped, IdentityWeights, NonzeroIndex, Weights, ends_of
from east.engine.graph.network import Unit
from east.engine.graph.program import Pass
from east.sparse.layers import MaskedConv2d

ENTRIES_ALIGNED = 4
"""Each list begins at a multiple of so many numbers, which are 16 bytes."""


class ResidentIndex:
    """The non-zeros of a layer by output and by input channel, as kernels walk over them.

    The weight is contiguous.

    Attributes:
        weights: those.
        capacity: how many non-zeros there is room for: as many as `weights.values` has numbers.
        by_output, by_input: the lists.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.capacity = len(weights.values)
        self._version = weights.version
        out_channels, in_channels = ends_of(weights)
        sizes = [size for groups in (out_channels, in_channels) for size in (groups + 1, *3 * (max(1, self.capacity),))]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // ENTRIES_ALIGNED) * ENTRIES_ALIGNED)
        self._memory = torch.zeros(starts[-1], dtype=torch.int32, device=weights.values.device)
        parts = [self._memory[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self.by_output, self.by_input = Grouped(*parts[:4]), Grouped(*parts[4:])
        self._host = torch.zeros_like(self._memory, device="cpu")
        self._host_parts = [self._host[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self.refill()

    def refill(self) -> None:
        """Write the lists of the current non-zeros."""
        index = NonzeroIndex.of(self.weights)
        lists = (getattr(by, field.name) for by in (index.by_output, index.by_input) for field in fields(Grouped))
        for part, new in zip(self._host_parts, lists, strict=True):
            part[: len(new)] = new
        self._memory.copy_(self._host)

    @property
    def still_fits(self) -> bool:
        """Whether the active weights are in the memory in which they were when this was made."""
        same = (self.capacity, self._version) == (len(self.weights.values), self.weights.version)
        return self.weights.is_static and same


class Convolution(ABC):
    """One use of a masked convolution, bound to memory.

    `z` (C, H, W, N) is its output, and in the backward pass the gradient there.

    Attributes:
        stored: which channels of `z` are written, as `Source` has it.
    """

    stored: Tensor | None

    def __init__(self, unit: Unit, index: ResidentIndex, x: SourceBuffer, z: Tensor) -> None:
        self.unit, self.index, self.x, self.z = unit, index, x, z
        self.window = unit.window

    @abstractmethod
    def forward(self, norm: Norm, training: bool) -> None:
        """Convolve with the weights as they are now, and find what batch norm makes of it."""

    @abstractmethod
    def backward(self, this: Pass) -> None:
        """From the gradient in `z` to those that are asked for, and to what the input's producer does not find."""

    def _add(self, this: Pass, **found: Tensor | None) -> None:
        """Add gradients of the weights; `values` come with that of the scale."""
        if self.unit.masked is None:
            return
        scale, values = self.unit.scale, found.get("values")
        if scale is not None and values is not None:
            scale.grad = (values * self.index.weights.values).sum()
        this.add(self.unit.layer, scale, **found)

    def _differentiate(self, weight: Tensor, *, of_input: bool) -> tuple[Tensor | None, Tensor]:
        """Gradients at the input (N, C, H, W), if wanted, and of all weights, in the type of accumulation."""
        _, stride, padding = self.window
        at_input, of_weight, _ = torch.ops.aten.convolution_backward(
            *(self._images(self.z), self._images(materialised(self.x.source)), weight.to(self.z.dtype)),
            *(None, (stride, stride), (padding, padding), (1, 1), False, (0, 0), 1, (of_input, True, False)),
        )
        return at_input, of_weight.to(weight.dtype).contiguous()

    def _images(self, activation: Tensor) -> Tensor:
        """An activation (C, H, W, N) as PyTorch convolves it: (N, C, H, W)."""
        images = activation.permute(3, 0, 1, 2)
        masked = self.unit.masked
        # Without positions every layout is one.
        return as_convolved(images, masked) if isinstance(masked, MaskedConv2d) else images.contiguous()


class SparseConvolution(Convolution):
    """Kernels execute the non-zeros; the input's producer finds their gradients, and that at the input.

    `products` has room for `products_needed` numbers, sums of products; other uses may share it.
    """

    def __init__(self, unit: Unit, index: ResidentIndex, x: SourceBuffer, z: Tensor, products: Tensor) -> None:
        super().__init__(unit, index, x, z)
        self.stored = index.by_output.start
        values = index.weights.values
        self._scaled = None if unit.scale is None else torch.empty_like(values)
        self._value_gradient = torch.empty_like(values)
        # The images need no gradient: there products belong to outputs.
        of = z if unit.x.producer is None else x.source.data
        shape = (max(1, index.capacity), parts_of(tuple(of.shape), of.dtype))
        self._products = products[: shape[0] * shape[1]].view(shape)

    @property
    def values(self) -> Tensor:
        """The weights of this use, in the order of places."""
        return self.index.weights.values if self._scaled is None else self._scaled

    def forward(self, norm: Norm, training: bool) -> None:
        """Convolve the non-zeros."""
        if self.unit.scale is not None and self._scaled is not None:
            torch.mul(self.index.weights.values, self.unit.scale.detach(), out=self._scaled)
        forward.convolve(self.x.source, self.index.by_output, self.values, self.window, self.z, norm, training)

    def backward(self, this: Pass) -> None:
        """Find what the request asks for beyond the gradients of non-zeros, and those too where nothing else will."""
        masked = self.unit.masked is not None
        if this.request.dense and masked:
            self._add(this, dense=self._differentiate(self.unit.own_weight(), of_input=False)[1])
        if this.request.signs is not None and masked:
            signs = this.request.signs[self.unit.layer]
            self._add(this, products=sketched(self.x.source, self.z, signs, self.window))
        if self.unit.x.producer is None:
            backward.value_gradients(
                *(self.x.source, self.index.by_output, self.window, self.z, self._products, self._value_gradient)
            )
            self.add_values(this)

    @property
    def consumer(self) -> Consumer:
        """What the input's producer needs to know."""
        return Consumer(self.index.by_input, self.values, self.window, self.z, self._products, self._value_gradient)

    def add_values(self, this: Pass) -> None:
        """Add the gradients of the non-zeros, once the input's producer has found them."""
        self._add(this, values=self._value_gradient)


class DenseConvolution(Convolution):
    """PyTorch convolves, between two changes of layout; in a DCT layer with the weight alpha * D + scale * S."""

    stored = None

    def forward(self, norm: Norm, training: bool) -> None:
        """Convolve with all weights."""
        x, (_, stride, padding) = self._images(materialised(self.x.source)), self.window
        z = F.conv2d(x, self.unit.dense_weight().to(x.dtype), None, stride, padding)
        self.z.copy_(z.permute(1, 2, 3, 0))
        forward.normalise(self.z, norm, training)

    def backward(self, this: Pass) -> None:
        """Find and add all gradients; the signs are multiplied with the dense one, as it is there."""
        has_producer = self.unit.x.producer is not None
        at_input, dense = self._differentiate(self.unit.dense_weight(), of_input=has_producer)
        if self.unit.dct is not None and self.unit.alpha is not None:
            self.unit.alpha.grad = (dense * self.unit.dct.dct.weight.view(dense.shape)).sum()
        products = None
        if this.request.signs is not None:
            signs = this.request.signs[self.unit.layer].to(dense.dtype)
            products = torch.einsum("oit,po->ipt", dense.flatten(2), signs).double()
        weights = self.index.weights
        if isinstance(weights, IdentityWeights):
            raise RuntimeError("the identity is not executed densely")
        values = weights.select(dense.view(weights.layer.weight.shape))
        self._add(this, values=values, dense=dense if this.request.dense else None, products=products)
        if at_input is not None:
            memory, gradient = self.x.gradient_memory, at_input.permute(1, 2, 3, 0)
            if self.x.has_gradient:
                memory.add_(gradient)
            else:
                memory.copy_(gradient)
            self.x.has_gradient = True


def products_needed(unit: Unit, index: ResidentIndex, batch: int, dtype: torch.dtype) -> int:
    """Numbers of memory that a `SparseConvolution` needs for sums of products."""
    of = unit.y if unit.x.producer is None else unit.x
    return max(1, index.capacity) * parts_of((*of.shape, batch), dtype)


def materialised(source: Source) -> Tensor:
    """The activation itself (C, H, W, N)."""
    if source.scale is None:
        return source.data
    y = torch.empty_like(source.data)
    forward.finish_block(source, None, y, rectify=False)
    return y
