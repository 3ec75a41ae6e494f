"""The classifier: means over positions, and a linear layer executed as a 1x1 convolution of 1x1 images."""

import torch
from torch import Tensor

from east.engine.cpu import kernels as k
from east.engine.cpu.buffers import Buffer, Layer, Pass
from east.engine.cpu.network import Head
from east.engine.cpu.sketch import contracted, parts_of


class HeadProgram:
    """The classifier bound to memory for one batch size.

    Args:
        head: the classifier.
        layer: its masked layer.
        x: the last activation.
        batch: images of a batch.
        kernels: the compiled kernels.
    """

    def __init__(self, head: Head, layer: Layer, x: Buffer, batch: int, kernels: k.KernelSet) -> None:
        self.head, self.layer, self.x, self.kernels = head, layer, x, kernels
        channels, classes = head.x.channels, head.linear.out_features
        self.geometry = k.Geometry(channels, 1, 1, classes, 1, 1, 1, 1, 0, batch)
        groups = k.groups_of(batch)
        self.means = x.data.new_empty(channels, groups, k.LANES)
        self.logits = x.data.new_zeros(classes, groups, k.LANES)
        self.value_gradient = torch.empty_like(layer.weights.values)
        sizes = (channels, head.x.height, head.x.width, batch)
        self._means = k.Means(*sizes, x.planes, k.address(self.means))

    def forward(self) -> Tensor:
        """Logits (classes, G, 32) of the last activation; they hold until the next pass."""
        self.kernels("means", self._means)
        lists, values = self.layer.index.by_output.lists, k.address(self.layer.weights.values)
        means, logits = k.address(self.means), k.address(self.logits)
        self.kernels("convolve", k.Convolve(self.geometry, lists, values, means, logits))
        return self.logits

    def backward(self, gradient: Tensor, this: Pass) -> None:
        """From the gradient (classes, G, 32) at the logits to those of the weights and at the last activation."""
        weights, index = self.layer.weights, self.layer.index
        planes, dz = k.Planes(k.address(self.means)), k.address(gradient)
        values = k.address(self.value_gradient)
        lists = index.by_output.lists
        self.kernels("weight_gradient", k.WeightGradient(self.geometry, lists, planes, dz, values, 0))
        at_means = torch.empty_like(self.means)
        self.kernels(
            "input_gradient",
            k.InputGradient(self.geometry, index.by_input.lists, k.address(weights.values), dz, k.address(at_means), 0),
        )
        dense = None
        if this.request.dense:
            dense = torch.empty_like(weights.layer.weight)
            self.kernels("dense_gradient", k.DenseGradient(self.geometry, planes, dz, k.address(dense)))
        products = None if this.request.signs is None else self._project(gradient, this.request.signs[self.head.layer])
        this.add(self.head.layer, None, values=self.value_gradient, dense=dense, products=products)
        self._spread(at_means)

    def _project(self, gradient: Tensor, signs: Tensor) -> Tensor:
        signs = signs.to(gradient.dtype).contiguous()
        sketches = gradient.new_empty(parts_of(len(gradient)), len(signs), *gradient.shape[1:])
        sizes = (len(gradient), gradient[0].numel(), len(signs))
        structure = k.Project(*sizes, k.address(gradient), k.address(signs), k.address(sketches))
        self.kernels("project", structure)
        return contracted(self.kernels, self.geometry, k.Planes(k.address(self.means)), sketches)

    def _spread(self, at_means: Tensor) -> None:
        """The gradient at a mean, divided among all positions."""
        if self.x.gradient is None:
            raise RuntimeError("the last activation has no memory for its gradient")
        # By a tensor: PyTorch may multiply by the inverse of a number instead.
        at_position = at_means / torch.full_like(at_means, self.head.x.height * self.head.x.width)
        self.x.gradient.copy_(at_position[:, :, None, None].expand_as(self.x.gradient))
        self.x.has_gradient = True
