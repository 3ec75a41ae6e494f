"""A network bound to memory for one batch size: its forward and backward pass, unit by unit."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from east.engine.sparse import kernels as k
from east.engine.sparse.buffers import Buffer, Layers, Pass
from east.engine.sparse.convolutions import CONVOLUTIONS, SparseConvolution, pushes
from east.engine.sparse.dynamic import Dynamic
from east.engine.sparse.head import HeadProgram
from east.engine.sparse.layout import to_batch_innermost
from east.engine.sparse.memory import Arena, padded
from east.engine.sparse.network import Activation, GradientKey, Network, Pool, Unit

SKETCH_PARTS = 16
"""Parts in which channels are summed up with signs: so many threads can share the backward pass of a unit at most."""


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
        self.network = network
        self.kernels = kernels
        arena.reset()
        gradients = {key: arena.take(*key[1:], batch) for key in _gradient_keys(network, layers)}
        self.buffers = {
            activation: Buffer(arena.take(*activation.shape, batch), gradients.get(activation.gradient_key))
            for activation in [network.images, *(node.y for node in network.nodes)]
        }
        self.nodes: list[UnitProgram | PoolProgram] = [
            PoolProgram(node, self.buffers, kernels)
            if isinstance(node, Pool)
            else UnitProgram(node, layers, self.buffers, arena, kernels)
            for node in network.nodes
        ]
        self.head = HeadProgram(network.head, layers[network.head.layer], kernels)
        programs = {node.unit: node for node in self.nodes if isinstance(node, UnitProgram)}
        for program in programs.values():
            program.gather_from([programs[reader] for reader in program.unit.y.readers])

    def forward(self, images: Tensor, this: Pass) -> Tensor:
        """Logits (classes, N).

        Raises:
            EastError: a channel has a single number, so that there are no batch statistics to train with.
        """
        if this.training:
            self.network.check_statistics(len(images))
        to_batch_innermost(self.kernels, images, self.buffers[self.network.images].data)
        for node in self.nodes:
            node.forward(this)
        return self.head.forward(self.buffers[self.network.head.x].data.mean(dim=(1, 2)))

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (classes, N) at the logits to those of all parameters."""
        at_means = self.head.backward(gradient, this)
        last = self.network.head.x
        for buffer in self.buffers.values():
            buffer.has_gradient = False
        at_last = self.buffers[last].gradient
        if at_last is None:
            raise RuntimeError("the last activation has no memory for its gradient")
        at_last.copy_((at_means / (last.height * last.width))[:, None, None].expand_as(at_last))
        self.buffers[last].has_gradient = True
        for node in reversed(self.nodes):
            node.backward(this)


def memory_needed(network: Network, layers: Layers, batch: int, dtype: torch.dtype) -> int:
    """Numbers that a program takes from its arena."""
    shapes = [network.images.shape, *(key[1:] for key in _gradient_keys(network, layers))]
    for node in network.nodes:
        copies = 1
        if isinstance(node, Unit):
            copies += (layers[node.layer].execution != "fused") + (node.dynamic is not None)
        shapes += [node.y.shape] * copies
    return sum(padded(math.prod(shape) * batch, dtype) for shape in shapes)


def _gradient_keys(network: Network, layers: Layers) -> set[GradientKey]:
    return {node.y.gradient_key for node in network.nodes if _needs_gradient(node.y, layers)}


def _needs_gradient(activation: Activation, layers: Layers) -> bool:
    """Whether the gradient at an activation is ever written to memory."""
    dynamic = isinstance(activation.producer, Unit) and activation.producer.dynamic is not None
    return activation.lasting or dynamic or any(pushes(unit, layers) for unit in activation.readers)


class PoolProgram:
    """A max-pool bound to memory."""

    def __init__(self, node: Pool, buffers: Mapping[Activation, Buffer], kernels: k.KernelSet) -> None:
        self.y = node.y
        self.kernels = kernels
        self.x_buffer = buffers[node.x]
        x, y = self.x_buffer, buffers[node.y]
        batch = x.data.shape[-1]
        geometry = k.Geometry(*node.x.shape, *node.y.shape, node.kernel, node.stride, node.padding, batch)
        self._forward = k.MaxPoolForward(geometry, k.address(x.data), k.address(y.data))
        self._backward = k.MaxPoolBackward(geometry, k.address(x.data), k.address(y.gradient), k.address(x.gradient))

    def forward(self, this: Pass) -> None:
        """Write the output."""
        self.kernels("max_pool_forward", self._forward)

    def backward(self, this: Pass) -> None:
        """Write the gradient at the input."""
        self.kernels("max_pool_backward", self._backward)
        self.x_buffer.has_gradient = True


class UnitProgram:
    """A unit bound to memory."""

    def __init__(
        self,
        unit: Unit,
        layers: Layers,
        buffers: Mapping[Activation, Buffer],
        arena: Arena,
        kernels: k.KernelSet,
    ) -> None:
        self.unit, self.y = unit, unit.y
        self.kernels = kernels
        layer = layers[unit.layer]
        x, y = buffers[unit.x], buffers[unit.y]
        self.x_buffer, self.y_buffer = x, y
        self.residual_buffer = None if unit.residual is None else buffers[unit.residual]
        z = None if layer.execution == "fused" else arena.take(*y.data.shape)
        self.dynamic = None if unit.dynamic is None else Dynamic(unit.dynamic, arena.take(*y.data.shape), kernels)
        self.read = self._read(layers)
        self.convolution = CONVOLUTIONS[layer.execution](
            unit, layer, x, y, z, kernels, pushes=pushes(unit, layers), read=self.read
        )
        channels = unit.y.channels
        self.mean, self.inverse_deviation = y.data.new_empty(channels), y.data.new_empty(channels)
        self.weight_gradient, self.bias_gradient = y.data.new_empty(channels), y.data.new_empty(channels)
        self.value_gradient = torch.empty_like(self.convolution.values)
        self._forward = self._make_forward(layers)
        self._backward = self._make_backward()

    def gather_from(self, readers: list["UnitProgram"]) -> None:
        """Take the gradient at the output from these units, as far as they do not write it themselves."""
        convolutions = [reader.convolution for reader in readers]
        gathered = [one for one in convolutions if isinstance(one, SparseConvolution) and not one.pushes]
        for place, one in enumerate(gathered):
            values, dz = k.address(one.values), k.address(one.y.data)
            self._backward.consumers[place] = k.Consumer(one.geometry, one.by_input.lists, values, dz)

    def forward(self, this: Pass) -> None:
        """Write the output and, in training, update the running statistics."""
        self.convolution.forward()
        self._forward.training = int(this.training)
        self._forward.wanted = None if this.everything else k.address(self.read)
        self.kernels("forward", self._forward)
        norm = self.unit.norm
        if this.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        if self.dynamic is not None:
            self.dynamic.forward(self.y_buffer.data, this.training)

    def backward(self, this: Pass) -> None:
        """Leave the gradients of the parameters, and what the units before this one need."""
        structure, buffer = self._backward, self.y_buffer
        structure.direct = k.address(buffer.gradient) if buffer.has_gradient else None
        if self.dynamic is not None and buffer.gradient is not None:
            coefficients, pooled = self.dynamic.backward(buffer.gradient)
            structure.coefficients, structure.pooled = k.address(coefficients), k.address(pooled)
        structure.dz = k.address(buffer.data) if self._needs_dz(this) else None
        structure.dz_of_dead = int(this.request.dense)
        sketches = self._prepare_sketch(this)
        self.kernels("backward", structure)
        self.unit.norm.weight.grad, self.unit.norm.bias.grad = self.weight_gradient, self.bias_gradient
        if self.residual_buffer is not None:
            self.residual_buffer.has_gradient = True  # the gradient after the activation, in the same memory
        products = None if sketches is None else self._correlate(sketches)
        self.convolution.backward(this, self.value_gradient, products)

    def _needs_dz(self, this: Pass) -> bool:
        return self.convolution.z is not None or self.unit.x.producer is not None or this.request.dense

    def _prepare_sketch(self, this: Pass) -> Tensor | None:
        """Have the backward kernel sum signs * dz over channels; a dense convolution has its dense gradient instead.

        Returns:
            Memory (parts, probes, H, W, N) for these sums, or None where they are not needed.
        """
        structure = self._backward
        structure.probes = 0
        if this.request.signs is None or self.convolution.layer.execution == "dense":
            return None
        self._signs = this.request.signs[self.unit.layer].to(self.value_gradient.dtype).contiguous()
        structure.probes = len(self._signs)
        structure.sketch_parts = min(SKETCH_PARTS, self.unit.y.channels)
        sketches = self._signs.new_empty(structure.sketch_parts, len(self._signs), *self.y_buffer.data.shape[1:])
        structure.signs, structure.sketches = k.address(self._signs), k.address(sketches)
        return sketches

    def _correlate(self, sketches: Tensor) -> Tensor:
        """The dense gradient contracted with the signs: (in, probes, taps) in float64."""
        parts, probes = sketches.shape[:2]
        taps = self.unit.conv.kernel_size[0] ** 2
        products = torch.empty(self.unit.x.channels, probes, taps, dtype=torch.float64)
        geometry, planes = self.convolution.geometry, self.x_buffer.planes
        structure = k.Correlate(geometry, planes, probes, parts, k.address(sketches), k.address(products))
        self.kernels("correlate", structure)
        return products

    def _read(self, layers: Layers) -> Tensor | None:
        """Which channels of the output anything reads; None for all of them."""
        if self.unit.y.lasting or self.dynamic is not None:
            return None
        indices = [layers[reader.layer].index for reader in self.unit.y.readers]
        occupied = [index.by_input.occupied for index in indices if index is not None]
        return torch.stack(occupied).amax(0) if len(occupied) == len(indices) else None

    def _structure(self) -> dict[str, Any]:
        """What the kernels of both passes are told."""
        norm, index = self.unit.norm, self.convolution.layer.index
        return {
            "geometry": self.convolution.geometry,
            "by_output": k.Lists() if index is None else index.by_output.lists,
            "values": k.address(self.convolution.values),
            "x": self.x_buffer.planes,
            "z": k.address(self.convolution.z),
            "weight": k.address(norm.weight),
            "bias": k.address(norm.bias),
            "mean": k.address(self.mean),
            "inverse_deviation": k.address(self.inverse_deviation),
        }

    def _make_forward(self, layers: Layers) -> k.Forward:
        unit, norm, y = self.unit, self.unit.norm, self.y_buffer
        # A constant takes no memory, but only fused convolutions know how to read it.
        inner = not unit.y.lasting and self.dynamic is None
        constants = inner and all(layers[reader.layer].execution == "fused" for reader in unit.y.readers)
        return k.Forward(
            **self._structure(),
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
        unit, y = self.unit, self.y_buffer
        # Without a residual the sign is found anew from z, and then the memory of the output is free at once.
        activation, decides = k.RECTIFY_BY_INPUT if unit.residual is None else k.RECTIFY_BY_OUTPUT, y.data
        if not unit.rectify:
            activation = k.NO_ACTIVATION
        elif self.dynamic is not None:
            activation, decides = k.DYNAMIC, self.dynamic.u
        return k.Backward(
            **self._structure(),
            activation=activation,
            y=k.address(decides),
            read=k.address(self.read),
            g=None if unit.residual is None else k.address(y.gradient),
            weight_gradient=k.address(self.weight_gradient),
            bias_gradient=k.address(self.bias_gradient),
            value_gradient=k.address(self.value_gradient),
        )
