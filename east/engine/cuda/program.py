"""A network bound to memory on a GPU. Nothing in a pass depends on data or waits for the device."""

from collections.abc import Mapping, Set

import torch.nn.functional as F
from torch import Tensor

from east.engine.cuda.convolutions import (
    Convolution,
    DenseConvolution,
    ResidentIndex,
    SparseConvolution,
    products_needed,
)
from east.engine.cuda.operands import Source, SourceBuffer
from east.engine.cuda.tiles import accumulation_type
from east.engine.cuda.units import CudaNode, CudaPool, CudaReshape, CudaUnit
from east.engine.graph.memory import Piece
from east.engine.graph.network import Head, Network, Pool, Reshape, Unit
from east.engine.graph.program import BoundHead, Pass, Program
from east.sparse.active import ActiveWeights


def stored_on_gpu(network: Network) -> dict[Piece, tuple[int, int, int]]:
    """What a program stores, with its shape (C, H, W).

    An activation that is a function of a convolution's output, channel by channel, is not stored: it is found again
    wherever it is read.
    """
    stored = {network.head.x}
    for node in network.nodes:
        if not isinstance(node, Unit):
            stored |= {node.x, node.y}
        elif node.residual is not None or node.dynamic is not None:
            stored.add(node.y)
    shapes: dict[Piece, tuple[int, int, int]] = {("y", network.images): network.images.shape}
    for node in network.nodes:
        if isinstance(node, Unit):
            shapes["z", node.y] = node.y.shape
            if node.dynamic is not None:
                shapes["u", node.y] = node.y.shape
        if node.y in stored:
            shapes["y", node.y] = node.y.shape
        shapes["gradient", node.y.gradient_key] = node.y.shape
    return shapes


def bind_to_gpu(
    network: Network, indices: Mapping[str, ResidentIndex], dense: Set[str], memory: Mapping[Piece, Tensor]
) -> Program:
    """A network bound to memory for one batch size.

    The memory is (C, H, W, N) for each of `stored_on_gpu`; PyTorch executes the layers named in `dense`.
    """
    at_images = memory["y", network.images]
    dtype, batch = at_images.dtype, at_images.shape[-1]
    buffers = {network.images: SourceBuffer(Source(at_images), None)}
    sparse = [unit for unit in network.units if unit.layer not in dense or unit.masked is None]
    needed = max((products_needed(unit, indices[unit.layer], batch, dtype) for unit in sparse), default=0)
    # Two convolutions at most read one activation, and then find products at the same time.
    products = at_images.new_empty(2, needed, dtype=accumulation_type(dtype))

    convolutions: dict[Unit, Convolution] = {}
    nodes: list[CudaNode] = []
    for node in network.nodes:
        x = buffers[node.x]
        bound: CudaNode
        if isinstance(node, Pool):
            bound = CudaPool(node, x, memory)
        elif isinstance(node, Reshape):
            bound = CudaReshape(node, x, memory)
        else:
            index, z = indices[node.layer], memory["z", node.y]
            convolutions[node] = (
                DenseConvolution(node, index, x, z)
                if node.layer in dense and node.masked is not None
                else SparseConvolution(node, index, x, z, products[node.x.readers.index(node)])
            )
            residual = None if node.residual is None else buffers[node.residual]
            bound = CudaUnit(node, convolutions[node], residual, memory)
        nodes.append(bound)
        buffers[node.y] = bound.buffer
    for node, bound in zip(network.nodes, nodes, strict=True):
        bound.gather_from([convolutions[reader] for reader in node.y.readers])
    of_head = indices[network.head.layer].weights
    if not isinstance(of_head, ActiveWeights):
        raise RuntimeError("the classifier is a masked layer")
    head = CudaHead(network.head, of_head, buffers[network.head.x])

    def take_images(images: Tensor) -> None:
        at_images.copy_(images.permute(1, 2, 3, 0))

    return Program(network, take_images, nodes, head, buffers.values())


class CudaHead(BoundHead):
    """The classifier, which PyTorch executes with all its weights: it takes next to no time."""

    def __init__(self, head: Head, weights: ActiveWeights, x: SourceBuffer) -> None:
        self.head, self.weights, self.x = head, weights, x
        self._features: Tensor | None = None

    def forward(self) -> Tensor:
        """Logits (N, classes) of the last activation."""
        last = self.x.source.data
        self._features = last.mean(dim=(1, 2), dtype=accumulation_type(last.dtype)).T
        bias = self.head.linear.bias
        return F.linear(self._features, self._weight(), None if bias is None else bias.detach())

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (N, classes) at the logits to those of the weights and at the last activation."""
        if self._features is None:
            raise RuntimeError("the backward pass of the classifier follows its forward pass")
        dense = gradient.T @ self._features
        if self.head.linear.bias is not None:
            self.head.linear.bias.grad = gradient.sum(0)
        if self.head.dct is not None:
            self.head.dct.alpha.grad = (dense * self.head.dct.dct.weight).sum()
        products = None
        if this.request.signs is not None:
            products = (this.request.signs[self.head.layer].to(dense.dtype) @ dense).T.double()[..., None]
        this.add(
            self.head.layer,
            None,
            values=self.weights.select(dense),
            dense=dense if this.request.dense else None,
            products=products,
        )
        self._spread(gradient @ self._weight())

    def _spread(self, at_means: Tensor) -> None:
        """From the gradient (N, C) at the means of the last activation to that at each position."""
        memory, positions = self.x.gradient_memory, self.head.x.height * self.head.x.width
        memory.copy_((at_means.T / positions)[:, None, None].expand_as(memory))
        self.x.has_gradient = True

    def _weight(self) -> Tensor:
        weight = self.head.linear.weight.detach()
        if self.head.dct is not None:
            weight = weight + self.head.dct.alpha.detach() * self.head.dct.dct.weight
        return weight
