"""A network bound to memory for one batch size: its forward and backward pass, unit by unit."""

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from east.engine.cpu.buffers import Pass
from east.engine.cpu.memory import Arena
from east.engine.cpu.network import Activation, Network, Pool, Unit
from east.engine.cuda import memory as m
from east.engine.cuda.convolutions import Convolution, DenseConvolution, SparseConvolution, products_needed
from east.engine.cuda.head import HeadProgram
from east.engine.cuda.index import ResidentIndex
from east.engine.cuda.lists import Source
from east.engine.cuda.tiles import accumulation_type
from east.engine.cuda.units import NodeProgram, PoolProgram, UnitProgram


class Program:
    """A network bound to memory for one batch size. Nothing in a pass depends on data or waits for the device.

    Args:
        network: the network.
        indices: the non-zeros of its masked layers by name.
        dense: the names of those convolutions that PyTorch executes.
        batch: images of a batch.
        arena: where activations live; has room for `memory.memory_needed`.
    """

    def __init__(
        self, network: Network, indices: Mapping[str, ResidentIndex], dense: Set[str], batch: int, arena: Arena
    ) -> None:
        self.network = network
        memory = m.take(network, batch, arena)
        self.images = memory["y", network.images]
        self.buffers = {network.images: m.Buffer(Source(self.images), None)}
        sparse = [unit for unit in network.units if unit.layer not in dense]
        needed = max((products_needed(unit, indices[unit.layer], batch, arena.dtype) for unit in sparse), default=0)
        # Two convolutions at most read one activation, and then find products at the same time.
        products = self.images.new_empty(2, needed, dtype=accumulation_type(arena.dtype))

        convolutions: dict[Unit, Convolution] = {}
        self.nodes: list[NodeProgram] = []
        for node in network.nodes:
            x = self.buffers[node.x]
            program: NodeProgram
            if isinstance(node, Pool):
                program = PoolProgram(node, x, memory)
            else:
                index, z = indices[node.layer], memory["z", node.y]
                convolutions[node] = (
                    DenseConvolution(node, index, x, z)
                    if node.layer in dense
                    else SparseConvolution(node, index, x, z, products[node.x.readers.index(node)])
                )
                residual = None if node.residual is None else self.buffers[node.residual]
                program = UnitProgram(node, convolutions[node], residual, memory)
            self.nodes.append(program)
            self.buffers[node.y] = program.buffer
        for node, program in zip(network.nodes, self.nodes, strict=True):
            program.gather_from([convolutions[reader] for reader in node.y.readers])
        self._first = [convolutions[unit] for unit in network.images.readers]
        self.head = HeadProgram(network.head, indices[network.head.layer].weights)
        norms = [unit.norm for unit in network.units]
        self._batches_seen = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]

    def forward(self, images: Tensor, *, training: bool, learns: bool) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W).

        Args:
            images: the images.
            training: statistics of the batch, and running ones updated.
            learns: whether a backward pass follows.

        Raises:
            EastError: a channel has a single number, so that there are no batch statistics to train with.
        """
        if training:
            self.network.check_statistics(len(images))
            torch._foreach_add_(self._batches_seen, 1)
        self.images.copy_(images.permute(1, 2, 3, 0))
        for node in self.nodes:
            node.forward(training=training, learns=learns)
        last = self.buffers[self.network.head.x].source.data
        return self.head.forward(last.mean(dim=(1, 2), dtype=accumulation_type(last.dtype)).T)

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (N, classes) at the logits to those of all parameters."""
        for buffer in self.buffers.values():
            buffer.has_gradient = False
        self._spread(self.head.backward(gradient, this), self.network.head.x)
        for node in reversed(self.nodes):
            node.backward(this)
        for convolution in self._first:
            if isinstance(convolution, SparseConvolution):
                convolution.find_values()
                convolution.add_values(this)

    def _spread(self, at_means: Tensor, last: Activation) -> None:
        """From the gradient (N, C) at the means of an activation to that at each position."""
        buffer = self.buffers[last]
        at_last = buffer.gradient_memory
        at_last.copy_((at_means.T / (last.height * last.width))[:, None, None].expand_as(at_last))
        buffer.has_gradient = True
