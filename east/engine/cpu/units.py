"""Units and pools of a network bound to memory for the compiled kernels: their forward and backward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from east.engine.cpu import bindings as k
from east.engine.graph.index import Grouped, NonzeroIndex
from east.engine.graph.memory import Buffer, Piece
from east.engine.graph.network import Activation, Pool, Unit
from east.engine.graph.program import BoundNode, Execution, Pass
from east.models.dyrelu import DyReLU
from east.sparse.active import ActiveWeights


@dataclass(frozen=True, eq=False)
class Layer:
    """A masked layer as it is executed."""

    weights: ActiveWeights
    execution: Execution
    index: NonzeroIndex


Layers = Mapping[str, Layer]


class PlaneBuffer(Buffer):
    """The memory of an activation.

    Attributes:
        data: (C, G, H, W, 32), G groups of images. In the backward pass it takes the gradient at the
            convolution that wrote it.
        kind: (C,) uint8, how each channel is kept.
        constants: (C,) the values of constant channels.
        gradient: (C, G, H, W, 32), the gradient at the activation; others of its shape use the same memory.
    """

    def __init__(self, data: Tensor, gradient: Tensor | None) -> None:
        super().__init__(gradient)
        self.data = data
        self.kind = torch.zeros(len(data), dtype=torch.uint8)
        self.constants = torch.zeros(len(data), dtype=k.value_dtype(data.dtype))

    @property
    def planes(self) -> k.Planes:
        """As kernels take it."""
        return k.Planes(self.data, self.kind, self.constants)


def is_gathered(activation: Activation, layers: Layers) -> bool:
    """Whether the unit that wrote an activation gathers the gradient at it on the way, from what its readers left."""
    producer = activation.producer
    unit = isinstance(producer, Unit) and producer.dynamic is None
    return unit and all(layers[reader.layer].execution == "fused" for reader in activation.readers)


class CpuPool(BoundNode):
    """A max-pool bound to memory."""

    def __init__(self, pool: Pool, buffers: Mapping[Activation, PlaneBuffer], batch: int, kernels: k.KernelSet) -> None:
        self.kernels = kernels
        self.x_buffer, self.y_buffer = buffers[pool.x], buffers[pool.y]
        x, y = self.x_buffer, self.y_buffer
        geometry = k.Geometry(*pool.x.shape, *pool.y.shape, *pool.window, batch)
        self._forward = k.MaxPoolForward(geometry, x.data, y.data)
        self._backward = k.MaxPoolBackward(geometry, x.data, y.gradient, x.gradient)
        self._readers: list[CpuUnit] = []

    def read_by(self, readers: "list[CpuUnit]") -> None:
        """Say which units read the output."""
        self._readers = readers

    def forward(self, this: Pass) -> None:
        """Write the output."""
        self.kernels("max_pool_forward", self._forward)

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input."""
        for reader in self._readers:
            reader.add_input_gradient()
        self.kernels("max_pool_backward", self._backward)
        self.x_buffer.has_gradient = True


class CpuUnit(BoundNode):
    """A unit bound to memory."""

    def __init__(
        self,
        unit: Unit,
        layers: Layers,
        buffers: Mapping[Activation, PlaneBuffer],
        memory: Mapping[Piece, Tensor],
        batch: int,
        kernels: k.KernelSet,
    ) -> None:
        self.unit, self.kernels = unit, kernels
        self.layer = layers[unit.layer]
        x, y = buffers[unit.x], buffers[unit.y]
        self.x_buffer, self.y_buffer = x, y
        self.residual_buffer = None if unit.residual is None else buffers[unit.residual]
        self.geometry = k.Geometry(*unit.x.shape, *unit.y.shape, *unit.window, batch)
        self.z = memory.get(("z", unit.y))
        dyrelu = unit.dynamic
        self.dynamic = None if dyrelu is None else CpuDyReLU(dyrelu, memory["u", unit.y], batch, kernels)
        self.read = self._read(layers)
        self.values = torch.empty_like(self.layer.weights.values)
        channels = unit.y.channels
        self.normalization = self.values.new_empty(channels, 4)
        self.weight_gradient, self.bias_gradient = self.values.new_empty(channels), self.values.new_empty(channels)
        self.value_gradient = torch.empty_like(self.values)
        self._readers: list[CpuUnit] = []
        self._gathers = is_gathered(unit.y, layers)
        self._forward = self._make_forward(layers)
        self._backward = self._make_backward()

    @cached_property
    def by_input(self) -> Grouped:
        """The non-zeros that carry a gradient to the input: not those of output channels that nothing reads."""
        by_input = self.layer.index.by_input
        return by_input if self.read is None else by_input.among(self.read)

    def read_by(self, readers: "list[CpuUnit]") -> None:
        """Say which units read the output, in the order in which their gradients are added."""
        self._readers = readers
        if not self._gathers:
            return
        for place, one in enumerate(readers):
            lists = k.Lists.of(one.by_input)
            self._backward.consumers[place] = k.Reader(one.geometry, lists, one.values, one.y_buffer.data)

    def forward(self, this: Pass) -> None:
        """Write the output and, in training, update the running statistics."""
        scale = self.unit.scale
        torch.mul(self.layer.weights.values, 1.0 if scale is None else scale.detach(), out=self.values)
        if self.z is not None:
            lists = k.Lists.of(self.layer.index.by_output)
            self.kernels("convolve", k.Convolve(self.geometry, lists, self.values, self.x_buffer.data, self.z))
        self._forward.training = int(this.training)
        self._forward.wanted = None if this.everything else k.address(self.read)
        self.kernels("forward", self._forward)
        if self.dynamic is not None:
            self.dynamic.forward(self.y_buffer.data)

    def backward(self, this: Pass) -> None:
        """Leave the gradients of the parameters, and what the units before this one need."""
        structure, buffer = self._backward, self.y_buffer
        if not self._gathers:
            for reader in self._readers:
                reader.add_input_gradient()
        structure.direct = k.address(buffer.gradient) if buffer.has_gradient else None
        if self.dynamic is not None and buffer.gradient is not None:
            self.dynamic.backward(buffer.gradient)
        needs_dz = self.z is not None or self.unit.x.producer is not None or this.request.dense
        structure.dz = k.address(buffer.data) if needs_dz else None
        structure.dz_of_dead = int(this.request.dense)
        sketches = self._prepare_sketch(this)
        self.kernels("backward", structure)
        self.unit.norm.weight.grad, self.unit.norm.bias.grad = self.weight_gradient, self.bias_gradient
        if self.residual_buffer is not None:
            self.residual_buffer.has_gradient = True  # the gradient after the activation, in the same memory
        products = None
        if sketches is not None:
            products = contracted(self.kernels, self.geometry, self.x_buffer.planes, sketches)
        self._find_weight_gradients(this, products)

    def add_input_gradient(self) -> None:
        """Add the gradient at the input to what is there of it."""
        lists, to, accumulate = k.Lists.of(self.by_input), self.x_buffer.gradient, int(self.x_buffer.has_gradient)
        arguments = k.InputGradient(self.geometry, lists, self.values, self.y_buffer.data, to, accumulate)
        self.kernels("input_gradient", arguments)
        self.x_buffer.has_gradient = True

    def _find_weight_gradients(self, this: Pass, products: Tensor | None) -> None:
        x, dz = self.x_buffer.planes, self.y_buffer.data
        weights, scale = self.layer.weights, self.unit.scale
        if self.z is not None:
            lists = k.Lists.of(self.layer.index.by_output)
            arguments = (self.geometry, lists, x, dz, self.value_gradient, k.FEW + 1, self.read)
            self.kernels("weight_gradient", k.WeightGradient(*arguments))
        dense = None
        if this.request.dense:
            dense = torch.empty_like(weights.layer.weight)
            self.kernels("dense_gradient", k.DenseGradient(self.geometry, x, dz, dense))
        if scale is not None:
            found = torch.empty(1, dtype=torch.float64)
            self.kernels("dot", k.Dot(weights.count, self.value_gradient, weights.values, found))
            scale.grad = found[0].to(scale.dtype)
        this.add(self.unit.layer, scale, values=self.value_gradient, dense=dense, products=products)

    def _prepare_sketch(self, this: Pass) -> Tensor | None:
        """Have the backward kernel sum signs * dz over channels.

        Returns:
            Memory (parts, probes, G, H, W, 32) for these sums, or None where they are not needed.
        """
        structure = self._backward
        structure.probes = 0
        if this.request.signs is None:
            return None
        self._signs = this.request.signs[self.unit.layer].to(self.values.dtype).contiguous()
        structure.probes = len(self._signs)
        parts = sketch_parts(self.unit.y.channels)
        sketches = self._signs.new_empty(parts, len(self._signs), *self.y_buffer.data.shape[1:])
        structure.signs, structure.sketches = k.address(self._signs), k.address(sketches)
        return sketches

    def _read(self, layers: Layers) -> Tensor | None:
        """Which channels of the output anything reads; None for all of them."""
        if self.unit.y.lasting or self.dynamic is not None:
            return None
        occupied = [layers[reader.layer].index.by_input.occupied for reader in self.unit.y.readers]
        return torch.stack(occupied).amax(0)

    def _structure(self) -> dict[str, Any]:
        """The arguments that the kernels of both passes share."""
        return {
            "geometry": self.geometry,
            "by_output": k.Lists.of(self.layer.index.by_output),
            "values": self.values,
            "x": self.x_buffer.planes,
            "z": self.z,
            "normalization": self.normalization,
        }

    def _make_forward(self, layers: Layers) -> k.Forward:
        unit, norm, y = self.unit, self.unit.norm, self.y_buffer
        # A constant takes no memory, but only fused convolutions know how to read it.
        inner = not unit.y.lasting and self.dynamic is None
        constants = inner and all(layers[reader.layer].execution == "fused" for reader in unit.y.readers)
        return k.Forward(
            **self._structure(),
            weight=norm.weight,
            bias=norm.bias,
            running_mean=norm.running_mean,
            running_variance=norm.running_var,
            epsilon=norm.eps,
            momentum=norm.momentum,
            rectify=int(unit.rectify and self.dynamic is None),
            constants=int(constants),
            residual=None if self.residual_buffer is None else self.residual_buffer.data,
            y=y.data if self.dynamic is None else self.dynamic.u,
            kind=y.kind,
            constant=y.constants,
            pooled=None if self.dynamic is None else self.dynamic.means,
        )

    def _make_backward(self) -> k.Backward:
        unit, y, dynamic = self.unit, self.y_buffer, self.dynamic
        # Without a residual the sign is found again from z, and then the memory of the output is free at once.
        activation, decides = k.RECTIFY_BY_INPUT if unit.residual is None else k.RECTIFY_BY_OUTPUT, y.data
        if not unit.rectify:
            activation = k.NO_ACTIVATION
        elif dynamic is not None:
            activation, decides = k.DYNAMIC, dynamic.u
        return k.Backward(
            **self._structure(),
            activation=activation,
            y=decides,
            coefficients=None if dynamic is None else dynamic.coefficients,
            pooled=None if dynamic is None else dynamic.at_means,
            read=self.read,
            g=None if unit.residual is None else y.gradient,
            weight_gradient=self.weight_gradient,
            bias_gradient=self.bias_gradient,
            value_gradient=self.value_gradient,
        )


class CpuDyReLU:
    """A DyReLU bound to memory.

    Its input is in `u` (C, G, H, W, 32).

    Attributes:
        means: (C, G, 32) the means of the input over positions; whoever writes `u` writes them.
        coefficients: (C, 4, G, 32) of the last forward pass.
        at_means: (C, G, 32) the gradient at the means, after a backward pass.
    """

    def __init__(self, dyrelu: DyReLU, u: Tensor, batch: int, kernels: k.KernelSet) -> None:
        channels, groups, height, width, _ = u.shape
        hidden = dyrelu.fc1.out_features
        self.dyrelu, self.u, self.batch, self.kernels = dyrelu, u, batch, kernels
        self.channels, self._shape = channels, (channels, height, width, batch)
        empty = partial(torch.empty, dtype=k.value_dtype(u.dtype))
        self.means, self.at_means = (empty(channels, groups, k.LANES) for _ in range(2))
        self._hidden, self._at_hidden = (empty(hidden, groups, k.LANES) for _ in range(2))
        self._code, self.coefficients, self._at_coefficients = (empty(channels, 4, groups, k.LANES) for _ in range(3))
        self._gradients = {
            layer: (torch.empty_like(layer.weight), torch.empty_like(layer.bias)) for layer in (dyrelu.fc1, dyrelu.fc2)
        }

    def forward(self, y: Tensor) -> None:
        """Write the output y (C, G, H, W, 32)."""
        self._multiply(self.dyrelu.fc1, self.means, self._hidden, rectify=True)
        self._multiply(self.dyrelu.fc2, self._hidden, self._code, rectify=False)
        sizes = (self.channels, self.batch, float(self.dyrelu.beta))
        self.kernels("coefficients", k.Coefficients(*sizes, self._code, self.coefficients))
        self.kernels("dyrelu_apply", k.DyReLUApply(*self._shape, k.Planes(self.u), self.coefficients, y))

    def backward(self, gradient: Tensor) -> None:
        """From the gradient (C, G, H, W, 32) at the output to those at the means and of the unit's parameters."""
        at_coefficients = self._at_coefficients
        arguments = (*self._shape, k.Planes(self.u), self.coefficients, gradient, at_coefficients)
        self.kernels("dyrelu_sums", k.DyReLUSums(*arguments))
        sizes = (self.channels, self.batch, float(self.dyrelu.beta))
        self.kernels("coefficients_backward", k.CoefficientsBackward(*sizes, self._code, at_coefficients))
        self._differentiate(self.dyrelu.fc2, self._hidden, None, self._at_coefficients, self._at_hidden)
        self._differentiate(self.dyrelu.fc1, self.means, self._hidden, self._at_hidden, self.at_means)

    def _multiply(self, layer: nn.Linear, x: Tensor, y: Tensor, *, rectify: bool) -> None:
        sizes = (layer.in_features, layer.out_features, self.batch)
        self.kernels("linear", k.Linear(*sizes, layer.weight, layer.bias, x, y, int(rectify)))

    def _differentiate(self, layer: nn.Linear, x: Tensor, y: Tensor | None, dy: Tensor, dx: Tensor) -> None:
        sizes = (layer.in_features, layer.out_features, self.batch)
        gradients = self._gradients[layer]
        self.kernels("linear_backward", k.LinearBackward(*sizes, layer.weight, x, y, dy, dx, *gradients))
        for parameter, gradient in zip((layer.weight, layer.bias), gradients, strict=True):
            if parameter.requires_grad:
                parameter.grad = gradient


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
