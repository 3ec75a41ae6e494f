"""The ways to execute one use of a masked convolution: fused with batch norm, tiled, or dense."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from east.engine.formats import as_convolved
from east.engine.sparse import kernels as k
from east.engine.sparse.buffers import Buffer, Execution, Layer, Layers, Pass
from east.engine.sparse.index import Grouped, NonzeroIndex
from east.engine.sparse.layout import from_batch_innermost, to_batch_innermost
from east.engine.sparse.network import Pool, Unit


class Convolution(ABC):
    """One use of a masked convolution, bound to memory.

    Args:
        unit: the use.
        layer: the masked layer.
        x: its input.
        y: the output of its unit, whose memory holds the gradient at the convolution in the backward pass.
        z: (C, H, W, N) memory for the convolution's own output, where it is kept.
        kernels: the compiled kernels.
        pushes: whether it writes the gradient at its input, see `pushes`.
        read: (out,) uint8, which channels of the unit's output anything reads; None for all.
    """

    def __init__(
        self,
        unit: Unit,
        layer: Layer,
        x: Buffer,
        y: Buffer,
        z: Tensor | None,
        kernels: k.KernelSet,
        *,
        pushes: bool,
        read: Tensor | None,
    ) -> None:
        self.unit, self.layer, self.x, self.y, self.z, self.kernels = unit, layer, x, y, z, kernels
        self.values = torch.empty_like(layer.weights.values)
        self.pushes, self.read = pushes, read
        conv = unit.conv
        self.geometry = k.Geometry(
            *unit.x.shape, *unit.y.shape, conv.kernel_size[0], conv.stride[0], int(conv.padding[0]), x.data.shape[-1]
        )

    def forward(self) -> None:
        """Take the weights as they are now and, where `z` is kept, convolve."""
        scale = self.unit.scale
        torch.mul(self.layer.weights.values, 1.0 if scale is None else scale.detach(), out=self.values)

    @abstractmethod
    def backward(self, this: Pass, value_gradient: Tensor, products: Tensor | None) -> None:
        """From the gradient at the convolution to those of weights and, where it is wanted, input.

        Args:
            this: the pass; takes the gradients of the weights.
            value_gradient: those of the non-zeros; found already where `z` is not kept, else to be written.
            products: (in, probes, taps) the dense gradient times the signs, where signs were given.
        """

    def _add(self, this: Pass, values: Tensor, dense: Tensor | None, products: Tensor | None) -> None:
        scale = self.unit.scale
        if scale is not None:
            scale.grad = (values * self.layer.weights.values).sum()
        this.add(self.unit.layer, scale, values=values, dense=dense, products=products)

    def _input(self) -> Tensor:
        """The input as PyTorch has it: (N, C, H, W)."""
        return as_convolved(from_batch_innermost(self.kernels, self.x.data, self.x.planes), self.unit.conv)

    def _gradient(self) -> Tensor:
        """The gradient at the convolution as PyTorch has it."""
        return as_convolved(from_batch_innermost(self.kernels, self.y.data), self.unit.conv)


class SparseConvolution(Convolution):
    """Executes the non-zeros of a layer."""

    @property
    def index(self) -> NonzeroIndex:
        """Where the non-zeros are."""
        if self.layer.index is None:
            raise ValueError(f"{self.unit.layer} is executed densely and has no index")
        return self.layer.index

    @cached_property
    def by_input(self) -> Grouped:
        """The non-zeros that carry a gradient to the input: not those of output channels that nothing reads."""
        return self.index.by_input if self.read is None else self.index.by_input.among(self.read)

    def backward(self, this: Pass, value_gradient: Tensor, products: Tensor | None) -> None:
        """Add the gradients of the weights, and of the input if its producer does not gather it."""
        dense = None
        if this.request.dense:
            _, dense = _differentiate(self.unit, self._input(), self._gradient(), None)
        self._add(this, value_gradient, dense, products)
        if self.pushes:
            self.kernels(
                "input_gradient",
                k.InputGradient(
                    self.geometry,
                    self.by_input.lists,
                    k.address(self.values),
                    k.address(self.y.data),
                    k.address(self.x.gradient),
                    int(self.x.has_gradient),
                ),
            )
            self.x.has_gradient = True


class FusedConvolution(SparseConvolution):
    """The kernels of the unit convolve on the way, and nothing is kept."""


class TiledConvolution(SparseConvolution):
    """Kernels of its own convolve, tile by tile."""

    def forward(self) -> None:
        """Convolve the non-zeros."""
        super().forward()
        x, z = k.address(self.x.data), k.address(self.z)
        lists = self.index.by_output.lists
        self.kernels("convolve", k.Convolve(self.geometry, lists, k.address(self.values), x, z))

    def backward(self, this: Pass, value_gradient: Tensor, products: Tensor | None) -> None:
        """Find and add the gradients."""
        x, dz = k.address(self.x.data), k.address(self.y.data)
        lists = self.index.by_output.lists
        self.kernels("weight_gradient", k.WeightGradient(self.geometry, lists, x, dz, k.address(value_gradient)))
        super().backward(this, value_gradient, products)


class DenseConvolution(Convolution):
    """PyTorch convolves, between two changes of layout; in a DCT layer with the weight alpha * D + scale * S."""

    def forward(self) -> None:
        """Convolve with all weights."""
        super().forward()
        conv = self.unit.conv
        if self.z is None:
            raise ValueError(f"{self.unit.layer} is executed densely and needs memory for its output")
        z = F.conv2d(self._input(), self.unit.dense_weight(), None, conv.stride, conv.padding)
        to_batch_innermost(self.kernels, z, self.z)

    def backward(self, this: Pass, value_gradient: Tensor, products: Tensor | None) -> None:
        """Find and add the gradients; the signs are multiplied with the dense one, as it is there."""
        weight = self.unit.dense_weight() if self.pushes else None
        at_input, dense = _differentiate(self.unit, self._input(), self._gradient(), weight)
        if self.unit.dct is not None and self.unit.alpha is not None:
            self.unit.alpha.grad = (dense * self.unit.dct.dct.weight).sum()
        if this.request.signs is not None:
            signs = this.request.signs[self.unit.layer].to(dense.dtype)
            products = torch.einsum("oit,po->ipt", dense.flatten(2), signs).double()
        self._add(this, self.layer.weights.select(dense), dense if this.request.dense else None, products)
        if at_input is None or self.x.gradient is None:
            return
        if self.x.has_gradient:
            added = torch.empty_like(self.x.gradient)
            to_batch_innermost(self.kernels, at_input, added)
            self.x.gradient.add_(added)
        else:
            to_batch_innermost(self.kernels, at_input, self.x.gradient)
        self.x.has_gradient = True


CONVOLUTIONS: dict[Execution, type[Convolution]] = {
    "fused": FusedConvolution,
    "tiled": TiledConvolution,
    "dense": DenseConvolution,
}
"""The class for each way of execution."""


def pushes(unit: Unit, layers: Layers) -> bool:
    """Whether a use writes the gradient at its input, instead of leaving it to the input's producer to gather it."""
    producer = unit.x.producer
    if producer is None:
        return False
    return layers[unit.layer].execution != "fused" or isinstance(producer, Pool) or producer.dynamic is not None


def _differentiate(unit: Unit, x: Tensor, dz: Tensor, weight: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """Gradients at the input, if a weight is given, and of all weights."""
    conv = unit.conv
    shape = conv.weight.detach() if weight is None else weight
    at_input, of_weight, _ = torch.ops.aten.convolution_backward(
        dz, x, shape, None, conv.stride, conv.padding, (1, 1), False, (0, 0), 1, (weight is not None, True, False)
    )
    return at_input, of_weight.contiguous()
