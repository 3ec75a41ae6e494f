"""Units and pools of a network bound to memory on a GPU: their forward and backward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from east.engine.cuda import backward, dyrelu, forward
from east.engine.cuda.convolutions import Convolution, SparseConvolution
from east.engine.cuda.operands import Norm, Output, Source, SourceBuffer
from east.engine.cuda.tiles import accumulation_type
from east.engine.graph.memory import Piece
from east.engine.graph.network import Pool, Reshape, Unit
from east.engine.graph.program import BoundNode, Pass
from east.models.dyrelu import DyReLU


class CudaNode(BoundNode):
    """A unit or a pool bound to memory."""

    def __init__(self, source: Source, gradient: Tensor) -> None:
        self.buffer = SourceBuffer(source, gradient)
        self._readers: list[SparseConvolution] = []

    def gather_from(self, readers: Sequence[Convolution]) -> None:
        """Take the gradient at the output from these convolutions, as far as they do not push it."""
        self._readers = [reader for reader in readers if isinstance(reader, SparseConvolution)]

    def _gather(self) -> None:
        """Find the gradient at the output, which is stored, and those of the non-zeros of what reads it."""
        if not self._readers:
            return
        gradient = self.buffer.gradient_memory
        consumers = [reader.consumer for reader in self._readers]
        direct = gradient if self.buffer.has_gradient else None
        backward.gather(self.buffer.source.data, consumers, direct, gradient)
        self.buffer.has_gradient = True


class CudaUnit(CudaNode):
    """A unit bound to memory."""

    def __init__(
        self, unit: Unit, convolution: Convolution, residual: SourceBuffer | None, memory: Mapping[Piece, Tensor]
    ) -> None:
        self.unit, self.convolution, self.residual = unit, convolution, residual
        z, y = convolution.z, memory.get(("y", unit.y))
        shape = (*unit.y.shape, z.shape[-1])
        self.norm = Norm.none(shape, z) if unit.norm is None else Norm.of(unit.norm, shape, z.dtype)
        self.dynamic = None if unit.dynamic is None else CudaDyReLU(unit.dynamic, memory["u", unit.y])
        self.normalised = Source(z, self.norm.scale, self.norm.shift, stored=self.convolution.stored)
        rectify = unit.rectify and self.dynamic is None
        source = replace(self.normalised, rectify=rectify) if y is None else Source(y)
        # Without a residual the sign is found again from z.
        self.output = Output(z, self.convolution.stored, self.norm, rectify, None if unit.residual is None else y)
        self._y = y
        super().__init__(source, memory["gradient", unit.y.gradient_key])

    def forward(self, this: Pass) -> None:
        """Convolve, normalise, add the residual and activate."""
        self.convolution.forward(self.norm, this.training and self.unit.norm is not None)
        if self._y is None:
            return
        residual = None if self.residual is None else self.residual.source
        if self.dynamic is not None:
            self.dynamic.forward(self.normalised, residual, self._y, learns=this.learns)
        else:
            forward.finish_block(self.normalised, residual, self._y, self.output.rectify)

    def backward(self, this: Pass) -> None:
        """Go back through activation, batch norm and convolution."""
        gradient, conditions = (
            self.buffer.gradient_memory,
            {
                "everything": this.everything and self.unit.masked is not None,
                # What is not normalised has statistics that stay.
                "training": this.training and self.unit.norm is not None,
            },
        )
        if self.dynamic is None:
            backward.through_unit(
                self.output,
                [reader.consumer for reader in self._readers],
                gradient if self.buffer.has_gradient else None,
                gradient,
                self.output.z,
                keep=self.residual is not None,
                **conditions,
            )
        else:
            self._gather()
            self.dynamic.backward(self.output, gradient)
            backward.through_norm(self.output, gradient, self.output.z, **conditions)
        if self.unit.norm is not None:
            self.unit.norm.weight.grad, self.unit.norm.bias.grad = self.norm.weight_gradient, self.norm.bias_gradient
        if self.residual is not None:
            self.residual.has_gradient = True  # the gradient behind the activation, in the same memory
        for reader in self._readers:
            reader.add_values(this)
        self.convolution.backward(this)


class CudaPool(CudaNode):
    """A max-pool bound to memory, which PyTorch executes: (C, N, H, W) is channels-last there, N being the channels."""

    def __init__(self, pool: Pool, x: SourceBuffer, memory: Mapping[Piece, Tensor]) -> None:
        self._window = [[length] * 2 for length in pool.window]
        self._x, self._y = x, memory["y", pool.y]
        self._indices: Tensor | None = None
        super().__init__(Source(self._y), memory["gradient", pool.y.gradient_key])

    def forward(self, this: Pass) -> None:
        """Write the output."""
        x = self._x.source.data.permute(0, 3, 1, 2)
        y, self._indices = torch.ops.aten.max_pool2d_with_indices(x, *self._window)
        self._y.copy_(y.permute(0, 2, 3, 1))

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input."""
        self._gather()
        for reader in self._readers:
            reader.add_values(this)
        gradient, x = (tensor.permute(0, 3, 1, 2) for tensor in (self.buffer.gradient_memory, self._x.source.data))
        at_input = torch.ops.aten.max_pool2d_with_indices_backward(
            *(gradient, x, *self._window, [1, 1], False, self._indices)
        )
        self._x.gradient_memory.copy_(at_input.permute(0, 2, 3, 1))
        self._x.has_gradient = True


class CudaReshape(CudaNode):
    """Means over positions, or all numbers of an image, as channels of one position: bound to memory."""

    def __init__(self, reshape: Reshape, x: SourceBuffer, memory: Mapping[Piece, Tensor]) -> None:
        self._is_mean, self._x, self._y = reshape.is_mean, x, memory["y", reshape.y]
        self._positions = reshape.x.height * reshape.x.width
        super().__init__(Source(self._y), memory["gradient", reshape.y.gradient_key])

    def forward(self, this: Pass) -> None:
        """Write the output."""
        x = self._x.source.data
        found = x.mean(dim=(1, 2), dtype=accumulation_type(x.dtype)) if self._is_mean else x.flatten(0, 2)
        self._y.copy_(found.view(self._y.shape))

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input."""
        self._gather()
        for reader in self._readers:
            reader.add_values(this)
        if self._x.gradient is None:
            return
        to, gradient = self._x.gradient, self.buffer.gradient_memory
        to.copy_((gradient / self._positions).expand_as(to) if self._is_mean else gradient.view(to.shape))
        self._x.has_gradient = True


class CudaDyReLU:
    """A DyReLU bound to memory.

    Its input is in `u` (C, H, W, N).
    """

    def __init__(self, unit: DyReLU, u: Tensor) -> None:
        self.unit, self.u = unit, u
        self._means_of_u = u.new_empty(u.shape[0], u.shape[-1], dtype=accumulation_type(u.dtype))
        self._means: Tensor | None = None
        self._coefficients: Tensor | None = None

    def forward(self, source: Source, residual: Source | None, y: Tensor, *, learns: bool) -> None:
        """Write the output y (C, H, W, N) for the input source + residual."""
        dyrelu.finish_input(source, residual, self.u, self._means_of_u)
        with torch.set_grad_enabled(learns):
            means = self._means_of_u.T.contiguous().requires_grad_(learns)
            coefficients = self.unit.coefficients(means).permute(1, 2, 0).contiguous()
        if learns:
            self._means, self._coefficients = means, coefficients
        dyrelu.apply(self.u, coefficients.detach(), y)

    def backward(self, output: Output, gradient: Tensor) -> None:
        """From the gradient at the DyReLU's output to that at batch norm's, in place.

        The gradients of the DyReLU's parameters are left in their `.grad`, and the sums that batch norm needs where
        `backward.through_norm` looks for them.
        """
        coefficients, means = self._coefficients, self._means
        if coefficients is None or means is None:
            raise RuntimeError("the backward pass of a DyReLU follows its forward pass in training")
        # PyTorch's graph must not outlive the step: what it keeps belongs to the stream on which it was recorded.
        self._coefficients = self._means = None
        values = coefficients.detach()
        of_coefficients = torch.empty_like(values)
        dyrelu.gradient_of_coefficients(self.u, values, gradient, of_coefficients)
        coefficients.backward(of_coefficients)  # type: ignore[no-untyped-call]
        at_means = means.grad
        assert at_means is not None  # noqa: S101
        _, height, width, _ = self.u.shape
        at_positions = (at_means.T / (height * width)).contiguous()
        dyrelu.gradient_of_input(
            *(self.u, values, gradient, at_positions, output.z, output.stored, output.norm, gradient)
        )
