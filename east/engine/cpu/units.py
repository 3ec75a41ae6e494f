"""Units and pools of a network bound to memory for the compiled kernels: their forward and backward pass."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from east.engine.cpu import bindings as k
from east.engine.cpu.dyrelu import CpuDyReLU
from east.engine.cpu.storage import PlaneBuffer, Storage
from east.engine.graph.index import Grouped
from east.engine.graph.memory import Piece
from east.engine.graph.network import Activation, Pool, Reshape, Unit
from east.engine.graph.program import BoundNode, Pass
from east.sparse.active import ActiveWeights

Buffers = Mapping[Activation, PlaneBuffer]


class CpuPool(BoundNode):
    """A max-pool bound to memory."""

    def __init__(self, pool: Pool, buffers: Buffers, batch: int, kernels: k.KernelSet) -> None:
        self.kernels = kernels
        self.x_buffer = x = buffers[pool.x]
        y = buffers[pool.y]
        geometry = k.Geometry(*pool.x.shape, *pool.y.shape, *pool.window, batch)
        self._forward = k.MaxPoolForward(geometry, x.data, y.data)
        self._backward = k.MaxPoolBackward(geometry, x.data, y.gradient, x.gradient)

    def forward(self, this: Pass) -> None:
        """Write the output."""
        self.kernels("max_pool_forward", self._forward)

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input, from that which the readers of the output have left."""
        self.kernels("max_pool_backward", self._backward)
        self.x_buffer.has_gradient = True


class CpuReshape(BoundNode):
    """Means over positions, or all numbers of an image, as channels of one position: bound to memory."""

    def __init__(self, reshape: Reshape, buffers: Buffers, batch: int, kernels: k.KernelSet) -> None:
        self.is_mean, self.kernels = reshape.is_mean, kernels
        self.x_buffer, self.y_buffer = buffers[reshape.x], buffers[reshape.y]
        self.y = self.y_buffer.data
        self._positions = reshape.x.height * reshape.x.width
        means = torch.empty(self.y.shape, dtype=k.value_dtype(self.y.dtype))
        self._means = means
        self._find_means = k.Means(*reshape.x.shape, batch, self.x_buffer.planes, means)

    def forward(self, this: Pass) -> None:
        """Write the output."""
        if self.is_mean:
            self.kernels("means", self._find_means)
            self.y.copy_(self._means)
        else:
            self.y.copy_(self._flat(self.x_buffer.data))

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input, from that which the readers of the output have left."""
        to = self.x_buffer.gradient
        if to is None:
            return
        gradient = self.y_buffer.gradient_memory
        if self.is_mean:
            # By a tensor: PyTorch may multiply by the inverse of a number instead.
            wide = gradient.to(self._means.dtype)
            to.copy_((wide / torch.full_like(wide, self._positions)).expand_as(to))
        else:
            groups, lanes = gradient.shape[1], gradient.shape[-1]
            channels, _, height, width, _ = to.shape
            to.copy_(gradient.reshape(channels, height, width, groups, lanes).permute(0, 3, 1, 2, 4))
        self.x_buffer.has_gradient = True

    @staticmethod
    def _flat(x: Tensor) -> Tensor:
        """(C, G, H, W, 32) as (C H W, G, 1, 1, 32): a copy."""
        groups, lanes = x.shape[1], x.shape[-1]
        return x.permute(0, 2, 3, 1, 4).reshape(-1, groups, 1, 1, lanes)


@dataclass(frozen=True)
class Bindings:
    """What the units of a network are bound to.

    Attributes:
        storage: what of the network is stored.
        buffers: of each activation.
        memory: the planes (C, G, H, W, 32) of each piece.
        batch: images.
        kernels: in the type of the planes.
    """

    storage: Storage
    buffers: Buffers
    memory: Mapping[Piece, Tensor]
    batch: int
    kernels: k.KernelSet


class CpuUnit(BoundNode):
    """A unit bound to memory."""

    def __init__(self, unit: Unit, to: Bindings) -> None:
        self.unit, self.storage, self.batch, self.kernels = unit, to.storage, to.batch, to.kernels
        self.layer = to.storage.layers[unit.layer]
        self.x_buffer, self.y_buffer = to.buffers[unit.x], to.buffers[unit.y]
        self.residual_buffer = None if unit.residual is None else to.buffers[unit.residual]
        self.geometry = k.Geometry(*unit.x.shape, *unit.y.shape, *unit.window, to.batch)
        dyrelu = unit.dynamic
        self.dynamic = None if dyrelu is None else CpuDyReLU(dyrelu, to.memory["u", unit.y], to.batch, to.kernels)
        self.read = self._read()
        self.values = torch.empty_like(self.layer.weights.values)
        channels = unit.y.channels
        self.normalization = self.values.new_empty(channels, 4)
        self.weight_gradient, self.bias_gradient = self.values.new_empty(channels), self.values.new_empty(channels)
        self.value_gradient = torch.empty_like(self.values)

    @cached_property
    def by_input(self) -> Grouped:
        """The non-zeros that carry a gradient to the input: not those of output channels that nothing reads."""
        by_input = self.layer.index.by_input
        return by_input if self.read is None else by_input.among(self.read)

    @property
    def by_output(self) -> k.Lists:
        """All non-zeros, by output channel."""
        return k.Lists.of(self.layer.index.by_output)

    @abstractmethod
    def gathers_from(self, readers: "list[CpuUnit]") -> None:
        """Have the gradient at the output gathered from these units, in the order in which they are added."""

    def _scale_values(self) -> None:
        """Take the weights as they are, times the scale of this use."""
        scale = self.unit.scale
        torch.mul(self.layer.weights.values, 1.0 if scale is None else scale.detach(), out=self.values)

    def _batch_norm(self) -> k.BatchNorm:
        norm = self.unit.norm
        if norm is None:  # without parameters, the kernels find none
            return k.BatchNorm(normalization=self.normalization)
        parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return k.BatchNorm(*parameters, self.normalization, norm.eps, norm.momentum)

    def _add_input_gradient(self, **arguments: Any) -> None:
        """Run the backward pass through the convolution row by row."""
        to = None if self.unit.x.producer is None else self.x_buffer.gradient
        self.kernels(
            "backward_rows",
            k.BackwardRows(
                geometry=self.geometry,
                by_output=self.by_output,
                by_input=k.Lists.of(self.by_input),
                values=self.values,
                to=to,
                accumulate=int(self.x_buffer.has_gradient),
                **arguments,
            ),
        )
        self.x_buffer.has_gradient = to is not None

    def _leave_gradients(self, this: Pass, x: k.Planes | None, dz: Tensor | None, products: Tensor | None) -> None:
        """Leave the gradients of the parameters, and of all weights if the input and the gradient at z are given."""
        if self.unit.norm is not None:
            self.unit.norm.weight.grad, self.unit.norm.bias.grad = self.weight_gradient, self.bias_gradient
        weights, scale = self.layer.weights, self.unit.scale
        if not isinstance(weights, ActiveWeights):
            return
        dense = None
        if dz is not None:
            dense = torch.empty_like(weights.layer.weight)
            self.kernels("dense_gradient", k.DenseGradient(self.geometry, x, dz, dense))
        if scale is not None:
            found = torch.empty(1, dtype=torch.float64)
            self.kernels("dot", k.Dot(weights.count, self.value_gradient, weights.values, found))
            scale.grad = found[0].to(scale.dtype)
        this.add(self.unit.layer, scale, values=self.value_gradient, dense=dense, products=products)

    def _signs(self, this: Pass) -> Tensor | None:
        """(probes, channels) for the sketches of the gradient at z, where they are asked for."""
        signs = this.request.signs
        return (
            None
            if signs is None or self.unit.masked is None
            else signs[self.unit.layer].to(self.values.dtype).contiguous()
        )

    def _backward_structure(self, z: Tensor | None, g: Tensor | None) -> k.Backward:
        """What the kernel `backward` takes: z where it is stored, and memory for the gradient before the activation."""
        unit, dynamic = self.unit, self.dynamic
        # Without a residual the sign is found again from z, and then the memory of the output is free at once.
        activation, decides = k.RECTIFY_BY_INPUT if unit.residual is None else k.RECTIFY_BY_OUTPUT, self.y_buffer.stored
        if not unit.rectify:
            activation = k.NO_ACTIVATION
        elif dynamic is not None:
            activation, decides = k.DYNAMIC, dynamic.u
        return k.Backward(
            geometry=self.geometry,
            by_output=self.by_output,
            values=self.values,
            x=k.Planes(self.x_buffer.stored, self.x_buffer.kind, self.x_buffer.constants),
            z=z,
            normalization=self.normalization,
            activation=activation,
            y=decides,
            coefficients=None if dynamic is None else dynamic.coefficients,
            pooled=None if dynamic is None else dynamic.at_means,
            read=self.read,
            g=g,
            weight_gradient=self.weight_gradient,
            bias_gradient=self.bias_gradient,
            value_gradient=self.value_gradient,
        )

    def _read(self) -> Tensor | None:
        """Which channels of the output anything reads; None for all of them."""
        if self.unit.y.lasting or self.dynamic is not None:
            return None
        occupied = [self.storage.layers[reader.layer].index.by_input.occupied for reader in self.unit.y.readers]
        return torch.stack(occupied).amax(0)


def take_readers(structure: k.Backward, readers: list[CpuUnit]) -> None:
    """Have a unit gather the gradient at its output from what its readers have left."""
    for place, one in enumerate(readers):
        lists = k.Lists.of(one.by_input)
        structure.consumers[place] = k.Reader(one.geometry, lists, one.values, one.y_buffer.data)


class FusedUnit(CpuUnit):
    """A unit whose convolution is executed with its batch norm, channel by channel."""

    def __init__(self, unit: Unit, to: Bindings) -> None:
        super().__init__(unit, to)
        self._forward = self._make_forward()
        self._backward = self._backward_structure(None, None if unit.residual is None else self.y_buffer.gradient)

    def gathers_from(self, readers: list[CpuUnit]) -> None:
        """Have the gradient gathered from what these units leave."""
        take_readers(self._backward, readers)

    def forward(self, this: Pass) -> None:
        """Write the output and, in training, update the running statistics."""
        self._scale_values()
        self._forward.norm.training = int(this.training and self.unit.norm is not None)
        self._forward.wanted = None if this.everything else k.address(self.read)
        self.kernels("forward", self._forward)
        if self.dynamic is not None:
            self.dynamic.forward(self.y_buffer.data)

    def backward(self, this: Pass) -> None:
        """Leave the gradients of the parameters, and what the units before this one need."""
        structure, buffer, x = self._backward, self.y_buffer, self.unit.x
        structure.direct = k.address(buffer.gradient) if buffer.has_gradient else None
        if self.dynamic is not None:
            self.dynamic.backward(buffer.gradient_memory)
        dense = this.request.dense and self.unit.masked is not None
        structure.dz = k.address(buffer.data) if x.producer is not None or dense else None
        structure.dz_of_dead = int(dense)
        sketches = self._prepare_sketch(this)
        self.kernels("backward", structure)
        if self.residual_buffer is not None:
            self.residual_buffer.has_gradient = True  # the gradient after the activation, in the same memory
        planes = self.x_buffer.planes
        products = None if sketches is None else contracted(self.kernels, self.geometry, planes, sketches)
        self._leave_gradients(this, planes, buffer.data if dense else None, products)
        if x.producer is not None and not self.storage.is_gathered(x):
            self._add_input_gradient(gradient=k.AtConvolution(buffer.data))

    def _prepare_sketch(self, this: Pass) -> Tensor | None:
        """Have the backward kernel sum signs * dz over channels.

        Returns:
            Memory (parts, probes, G, H, W, 32) for these sums, or None where they are not needed.
        """
        structure = self._backward
        structure.probes = 0
        self._used_signs = signs = self._signs(this)
        if signs is None:
            return None
        structure.probes = len(signs)
        sketches = signs.new_empty(sketch_parts(self.unit.y.channels), len(signs), *self.y_buffer.data.shape[1:])
        structure.signs, structure.sketches = k.address(signs), k.address(sketches)
        return sketches

    def _make_forward(self) -> k.Forward:
        unit, y, dynamic = self.unit, self.y_buffer, self.dynamic
        # A constant takes no memory, but only fused convolutions know how to read it.
        inner = not unit.y.lasting and dynamic is None
        constants = inner and self.storage.is_gathered(unit.y)
        return k.Forward(
            geometry=self.geometry,
            by_output=self.by_output,
            values=self.values,
            x=self.x_buffer.planes,
            norm=self._batch_norm(),
            rectify=int(unit.rectify and dynamic is None),
            constants=int(constants),
            residual=None if self.residual_buffer is None else self.residual_buffer.data,
            y=y.data if dynamic is None else dynamic.u,
            kind=y.kind,
            constant=y.constants,
            pooled=None if dynamic is None else dynamic.means,
        )


def sketch_parts(channels: int) -> int:
    """Sums of signs * dz that a layer of this many output channels has, before they are added up."""
    return -(-channels // k.SKETCH_CHANNELS)


def contracted(kernels: k.KernelSet, geometry: k.Geometry, x: k.Planes, sketches: Tensor) -> Tensor:
    """The dense gradient of a convolution contracted with the signs of its sketches, (in, probes, taps) in float64.

    The sketches (parts, probes, ...) are sums of signs * dz over channels; the first part becomes the sum of all.
    """
    parts, probes = sketches.shape[:2]
    products = torch.empty(geometry.in_channels, probes, geometry.kernel**2, dtype=torch.float64)
    kernels("correlate", k.Correlate(geometry, x, probes, parts, sketches, products))
    return products
