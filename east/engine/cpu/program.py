"""A network bound to memory for the compiled kernels."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from east.engine.base import CrossEntropy
from east.engine.cpu import bindings as k
from east.engine.cpu.rows import RowsUnit
from east.engine.cpu.storage import Layer, PlaneBuffer, Storage
from east.engine.cpu.units import Bindings, CpuPool, CpuReshape, CpuUnit, FusedUnit, contracted, sketch_parts
from east.engine.graph.memory import Piece
from east.engine.graph.network import Head, Pool, Reshape
from east.engine.graph.program import BoundHead, Pass, Program
from east.errors import EastError
from east.sparse.active import ActiveWeights


def bind_to_cpu(storage: Storage, batch: int, memory: Mapping[Piece, Tensor], kernels: k.KernelSet) -> Program:
    """A network bound to memory for one batch size.

    The memory is (C, G, H, W, 32) for each of `storage.shapes()`.
    """
    network, layers = storage.network, storage.layers
    activations = (network.images, *(node.y for node in network.nodes))
    buffers = {activation: storage.buffer(activation, memory, kernels.dtype) for activation in activations}
    to = Bindings(storage, buffers, memory, batch, kernels)
    nodes: list[CpuPool | CpuReshape | CpuUnit] = []
    for described in network.nodes:
        if isinstance(described, Pool):
            nodes.append(CpuPool(described, buffers, batch, kernels))
        elif isinstance(described, Reshape):
            nodes.append(CpuReshape(described, buffers, batch, kernels))
        else:
            kind = RowsUnit if layers[described.layer].execution == "rows" else FusedUnit
            nodes.append(kind(described, to))
    units = {node.unit: node for node in nodes if isinstance(node, CpuUnit)}
    for unit, node in units.items():
        if storage.is_gathered(unit.y):
            # In the order in which the backward pass comes to them.
            node.gathers_from([units[reader] for reader in reversed(unit.y.readers)])
    head = CpuHead(network.head, layers[network.head.layer], buffers[network.head.x], batch, kernels)

    def take_images(images: Tensor) -> None:
        images = images.contiguous()
        strides = (images[0].numel(), images[0, 0].numel(), 1)
        kernels("take_images", k.TakeImages(images, buffers[network.images].data, *images.shape, *strides))

    return Program(network, take_images, nodes, head, buffers.values())


class CpuHead(BoundHead):
    """The classifier bound to memory; its linear layer is executed as a 1x1 convolution of 1x1 images."""

    def __init__(self, head: Head, layer: Layer, x: PlaneBuffer, batch: int, kernels: k.KernelSet) -> None:
        self.head, self.layer, self.x, self.batch, self.kernels = head, layer, x, batch, kernels.of_values
        if not isinstance(layer.weights, ActiveWeights):
            raise RuntimeError("the classifier is a masked layer")
        self.weights = layer.weights
        channels, classes = head.x.channels, head.linear.out_features
        self.geometry = k.Geometry(channels, 1, 1, classes, 1, 1, 1, 1, 0, batch)
        groups = k.groups_of(batch)
        self.means = layer.weights.values.new_empty(channels, groups, k.LANES)
        self.logits = layer.weights.values.new_zeros(classes, groups, k.LANES)
        self.value_gradient = torch.empty_like(layer.weights.values)
        sizes = (channels, head.x.height, head.x.width, batch)
        self._find_means = partial(kernels, "means", k.Means(*sizes, x.planes, self.means))

    def forward(self) -> Tensor:
        """Logits (N, classes) of the last activation: a copy."""
        self._find_means()
        lists, values = k.Lists.of(self.layer.index.by_output), self.layer.weights.values
        self.kernels("convolve", k.Convolve(self.geometry, lists, values, k.RowSource(self.means), self.logits))
        return self.logits.flatten(1)[:, : self.batch].T.contiguous()

    def loss(self, logits: Tensor, criterion: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The criterion's value, 0-d, and its gradient (classes, G, 32) at the logits."""
        if isinstance(criterion, CrossEntropy):
            return self._cross_entropy(criterion.labels)
        loss, found = super().loss(logits, criterion)
        gradient = torch.zeros_like(self.logits)
        gradient.flatten(1)[:, : self.batch] = found.T
        return loss, gradient

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (classes, G, 32) at the logits to those of the weights and at the last activation."""
        weights, planes = self.weights, k.Planes(self.means)
        by_output, by_input = k.Lists.of(self.layer.index.by_output), k.Lists.of(self.layer.index.by_input)
        at_means = torch.empty_like(self.means)
        self.kernels(
            "backward_rows",
            k.BackwardRows(
                geometry=self.geometry,
                by_output=by_output,
                by_input=by_input,
                values=weights.values,
                x=k.RowSource(self.means),
                gradient=k.AtConvolution(gradient),
                to=at_means,
                value_gradient=self.value_gradient,
            ),
        )
        dense = None
        if this.request.dense:
            dense = torch.empty_like(weights.layer.weight)
            self.kernels("dense_gradient", k.DenseGradient(self.geometry, planes, gradient, dense))
        products = None if this.request.signs is None else self._project(gradient, this.request.signs[self.head.layer])
        this.add(self.head.layer, None, values=self.value_gradient, dense=dense, products=products)
        self._spread(at_means)

    def _cross_entropy(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = torch.empty(1, dtype=torch.float64), torch.empty_like(self.logits)
        labels = labels.to(torch.int64).contiguous()
        least, most = torch.aminmax(labels)
        if least < 0 or most >= len(self.logits):
            raise EastError(f"labels must be from 0 to {len(self.logits) - 1}, not {int(least)} to {int(most)}.")
        sizes = (len(self.logits), len(labels))
        self.kernels("cross_entropy", k.CrossEntropyLoss(*sizes, self.logits, labels, loss, gradient))
        return loss[0] / len(labels), gradient

    def _project(self, gradient: Tensor, signs: Tensor) -> Tensor:
        signs = signs.to(gradient.dtype).contiguous()
        sketches = gradient.new_empty(sketch_parts(len(gradient)), len(signs), *gradient.shape[1:])
        sizes = (len(gradient), gradient[0].numel(), len(signs))
        self.kernels("project", k.Project(*sizes, gradient, signs, sketches))
        return contracted(self.kernels, self.geometry, k.Planes(self.means), sketches)

    def _spread(self, at_means: Tensor) -> None:
        """The gradient at a mean, divided among all positions."""
        # By a tensor: PyTorch may multiply by the inverse of a number instead.
        at_position = at_means / torch.full_like(at_means, self.head.x.height * self.head.x.width)
        memory = self.x.gradient_memory
        memory.copy_(at_position[:, :, None, None].expand_as(memory))
        self.x.has_gradient = True
