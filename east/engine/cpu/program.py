"""A network bound to memory for one batch size: its forward and backward pass, unit by unit."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from east.engine.cpu import kernels as k
from east.engine.cpu.buffers import Buffer, Layers, Pass
from east.engine.cpu.dynamic import Dynamic
from east.engine.cpu.head import HeadProgram
from east.engine.cpu.index import Grouped
from east.engine.cpu.memory import Arena, padded
from east.engine.cpu.network import Activation, GradientKey, Network, Pool, Unit
from east.engine.cpu.sketch import contracted, parts_of


class Program:
    """A network bound to memory for one batch size.

    Args:
        network: the network.
        layers: its masked layers by name.
        batch: images of a batch.
        arena: where activations live; has room for `memory_needed`.
        kernels: the compiled kernels.
    """

    def __init__(self, network: Network, layers: Layers, batch: int, arena: Arena, kernels: k.KernelSet) -> None:
        self.network, self.kernels = network, kernels
        arena.reset()
        gradients = {key: _take(arena, key[1:], batch) for key in _gradient_keys(network, layers)}
        self.buffers = {
            activation: Buffer(_take(arena, activation.shape, batch), gradients.get(activation.gradient_key))
            for activation in [network.images, *(node.y for node in network.nodes)]
        }
        self.nodes: list[UnitProgram | PoolProgram] = [
            PoolProgram(node, self.buffers, batch, kernels)
            if isinstance(node, Pool)
            else UnitProgram(node, layers, self.buffers, batch, arena, kernels)
            for node in network.nodes
        ]
        head = network.head
        self.head = HeadProgram(head, layers[head.layer], self.buffers[head.x], batch, kernels)
        programs = {node.unit: node for node in self.nodes if isinstance(node, UnitProgram)}
        for node in self.nodes:
            # In the order in which the backward pass comes to them.
            node.read_by([programs[reader] for reader in reversed(node.y.readers)])

    def forward(self, images: Tensor, this: Pass) -> Tensor:
        """Logits (classes, G, 32), which hold until the next pass.

        Raises:
            EastError: a channel has a single number, so that there are no batch statistics to train with.
        """
        if this.training:
            self.network.check_statistics(len(images))
        self._take(images)
        for node in self.nodes:
            node.forward(this)
        return self.head.forward()

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (classes, G, 32) at the logits to those of all parameters."""
        for buffer in self.buffers.values():
            buffer.has_gradient = False
        self.head.backward(gradient, this)
        for node in reversed(self.nodes):
            node.backward(this)

    def _take(self, images: Tensor) -> None:
        _, channels, height, width = images.shape
        images = images.contiguous()
        to = k.address(self.buffers[self.network.images].data)
        strides = (channels * height * width, height * width, 1)
        structure = k.TakeImages(k.address(images), to, *images.shape, *strides)
        self.kernels("take_images", structure)


def _take(arena: Arena, shape: tuple[int, int, int], batch: int) -> Tensor:
    """Memory for an activation (C, H, W) of a batch: (C, G, H, W, 32), with gaps between channels as kernels expect."""
    channels, height, width = shape
    groups = k.groups_of(batch)
    memory = arena.take(channels, k.plane_stride(groups, height, width))
    return memory[:, : groups * height * width * k.LANES].view(channels, groups, height, width, k.LANES)


def memory_needed(network: Network, layers: Layers, batch: int, dtype: torch.dtype) -> int:
    """Numbers that a program takes from its arena."""
    groups = k.groups_of(batch)
    shapes = [network.images.shape, *(key[1:] for key in _gradient_keys(network, layers))]
    for node in network.nodes:
        copies = 1
        if isinstance(node, Unit):
            copies += (layers[node.layer].execution == "rows") + (node.dynamic is not None)
        shapes += [node.y.shape] * copies
    return sum(padded(channels * k.plane_stride(groups, *size), dtype) for channels, *size in shapes)


def _gradient_keys(network: Network, layers: Layers) -> set[GradientKey]:
    return {node.y.gradient_key for node in network.nodes if _needs_gradient(node.y, layers)}


def _needs_gradient(activation: Activation, layers: Layers) -> bool:
    """Whether the gradient at an activation is ever written to memory."""
    return activation.lasting or not _is_gathered(activation, layers)


def _is_gathered(activation: Activation, layers: Layers) -> bool:
    """Whether the unit that wrote an activation gathers the gradient at it on the way, from what its readers left."""
    producer = activation.producer
    unit = isinstance(producer, Unit) and producer.dynamic is None
    return unit and all(layers[reader.layer].execution == "fused" for reader in activation.readers)


class PoolProgram:
    """A max-pool bound to memory."""

    def __init__(self, node: Pool, buffers: Mapping[Activation, Buffer], batch: int, kernels: k.KernelSet) -> None:
        self.y = node.y
        self.kernels = kernels
        self.x_buffer, self.y_buffer = buffers[node.x], buffers[node.y]
        x, y = self.x_buffer, self.y_buffer
        geometry = k.Geometry(*node.x.shape, *node.y.shape, node.kernel, node.stride, node.padding, batch)
        self._forward = k.MaxPoolForward(geometry, k.address(x.data), k.address(y.data))
        self._backward = k.MaxPoolBackward(geometry, k.address(x.data), k.address(y.gradient), k.address(x.gradient))
        self._readers: list[UnitProgram] = []

    def read_by(self, readers: "list[UnitProgram]") -> None:
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


class UnitProgram:
    """A unit bound to memory."""

    def __init__(
        self,
        unit: Unit,
        layers: Layers,
        buffers: Mapping[Activation, Buffer],
        batch: int,
        arena: Arena,
        kernels: k.KernelSet,
    ) -> None:
        self.unit, self.y, self.kernels = unit, unit.y, kernels
        self.layer = layers[unit.layer]
        x, y = buffers[unit.x], buffers[unit.y]
        self.x_buffer, self.y_buffer = x, y
        self.residual_buffer = None if unit.residual is None else buffers[unit.residual]
        conv = unit.conv
        self.geometry = k.Geometry(
            *unit.x.shape, *unit.y.shape, conv.kernel_size[0], conv.stride[0], int(conv.padding[0]), batch
        )
        self.z = _take(arena, unit.y.shape, batch) if self.layer.execution == "rows" else None
        dyrelu = unit.dynamic
        self.dynamic = None if dyrelu is None else Dynamic(dyrelu, _take(arena, unit.y.shape, batch), batch, kernels)
        self.read = self._read(layers)
        self.values = torch.empty_like(self.layer.weights.values)
        channels = unit.y.channels
        self.normalization = y.data.new_empty(channels, 4)
        self.weight_gradient, self.bias_gradient = y.data.new_empty(channels), y.data.new_empty(channels)
        self.value_gradient = torch.empty_like(self.values)
        self._readers: list[UnitProgram] = []
        self._gathers = _is_gathered(unit.y, layers)
        self._forward = self._make_forward(layers)
        self._backward = self._make_backward()

    @cached_property
    def by_input(self) -> Grouped:
        """The non-zeros that carry a gradient to the input: not those of output channels that nothing reads."""
        by_input = self.layer.index.by_input
        return by_input if self.read is None else by_input.among(self.read)

    def read_by(self, readers: "list[UnitProgram]") -> None:
        """Say which units read the output, in the order in which their gradients are added."""
        self._readers = readers
        if not self._gathers:
            return
        for place, one in enumerate(readers):
            values, dz = k.address(one.values), k.address(one.y_buffer.data)
            self._backward.consumers[place] = k.Consumer(one.geometry, one.by_input.lists, values, dz)

    def forward(self, this: Pass) -> None:
        """Write the output and, in training, update the running statistics."""
        scale = self.unit.scale
        torch.mul(self.layer.weights.values, 1.0 if scale is None else scale.detach(), out=self.values)
        if self.z is not None:
            x, z = k.address(self.x_buffer.data), k.address(self.z)
            lists = self.layer.index.by_output.lists
            self.kernels("convolve", k.Convolve(self.geometry, lists, k.address(self.values), x, z))
        self._forward.training = int(this.training)
        self._forward.wanted = None if this.everything else k.address(self.read)
        self.kernels("forward", self._forward)
        norm = self.unit.norm
        if this.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
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
        structure.dz = k.address(buffer.data) if self._needs_dz(this) else None
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
        arguments = (k.address(tensor) for tensor in (self.values, self.y_buffer.data, self.x_buffer.gradient))
        accumulate = int(self.x_buffer.has_gradient)
        lists = self.by_input.lists
        self.kernels("input_gradient", k.InputGradient(self.geometry, lists, *arguments, accumulate))
        self.x_buffer.has_gradient = True

    def _find_weight_gradients(self, this: Pass, products: Tensor | None) -> None:
        x, dz = self.x_buffer.planes, k.address(self.y_buffer.data)
        weights, scale = self.layer.weights, self.unit.scale
        if self.z is not None:
            lists, gradient = self.layer.index.by_output.lists, k.address(self.value_gradient)
            least = k.FEW + 1
            read = k.address(self.read)
            self.kernels("weight_gradient", k.WeightGradient(self.geometry, lists, x, dz, gradient, least, read))
        dense = None
        if this.request.dense:
            dense = torch.empty_like(weights.layer.weight)
            self.kernels("dense_gradient", k.DenseGradient(self.geometry, x, dz, k.address(dense)))
        if scale is not None:
            found = torch.empty(1, dtype=torch.float64)
            left, right = k.address(self.value_gradient), k.address(weights.values)
            self.kernels("dot", k.Dot(weights.count, left, right, k.address(found)))
            scale.grad = found[0].to(scale.dtype)
        this.add(self.unit.layer, scale, values=self.value_gradient, dense=dense, products=products)

    def _needs_dz(self, this: Pass) -> bool:
        return self.z is not None or self.unit.x.producer is not None or this.request.dense

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
        parts = parts_of(self.unit.y.channels)
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
        """What the kernels of both passes are told."""
        return {
            "geometry": self.geometry,
            "by_output": self.layer.index.by_output.lists,
            "values": k.address(self.values),
            "x": self.x_buffer.planes,
            "z": k.address(self.z),
            "normalization": k.address(self.normalization),
        }

    def _make_forward(self, layers: Layers) -> k.Forward:
        unit, norm, y = self.unit, self.unit.norm, self.y_buffer
        # A constant takes no memory, but only fused convolutions know how to read it.
        inner = not unit.y.lasting and self.dynamic is None
        constants = inner and all(layers[reader.layer].execution == "fused" for reader in unit.y.readers)
        return k.Forward(
            **self._structure(),
            weight=k.address(norm.weight),
            bias=k.address(norm.bias),
            running_mean=k.address(norm.running_mean),
            running_variance=k.address(norm.running_var),
            epsilon=norm.eps,
            momentum=norm.momentum,
            rectify=int(unit.rectify and self.dynamic is None),
            constants=int(constants),
            residual=None if self.residual_buffer is None else k.address(self.residual_buffer.data),
            y=k.address(y.data if self.dynamic is None else self.dynamic.u),
            kind=k.address(y.kind),
            constant=k.address(y.constants),
            pooled=None if self.dynamic is None else k.address(self.dynamic.means),
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
            y=k.address(decides),
            coefficients=None if dynamic is None else k.address(dynamic.coefficients),
            pooled=None if dynamic is None else k.address(dynamic.at_means),
            read=k.address(self.read),
            g=None if unit.residual is None else k.address(y.gradient),
            weight_gradient=k.address(self.weight_gradient),
            bias_gradient=k.address(self.bias_gradient),
            value_gradient=k.address(self.value_gradient),
        )
