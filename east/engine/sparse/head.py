"""The classifier in the layout of the kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from east.engine.sparse import kernels as k
from east.engine.sparse.buffers import Layer, Pass
from east.engine.sparse.network import Head


class HeadProgram:
    """A linear layer, executed as a 1x1 convolution of 1x1 images, or by PyTorch where it is dense.

    Args:
        head: the classifier.
        layer: its masked layer.
        kernels: the compiled kernels.
    """

    def __init__(self, head: Head, layer: Layer, kernels: k.KernelSet) -> None:
        self.head, self.layer, self.kernels = head, layer, kernels
        self._features: Tensor | None = None

    def forward(self, means: Tensor) -> Tensor:
        """Logits (classes, N) of features (C, N)."""
        self._features = means
        linear = self.head.linear
        if self.layer.index is None:
            bias = None if linear.bias is None else linear.bias.detach()
            return F.linear(means.T, self._weight(), bias).T.contiguous()
        logits = means.new_zeros(linear.out_features, means.shape[1])
        lists, values = self.layer.index.by_output.lists, k.address(self.layer.weights.values)
        geometry = self._geometry(means)
        self.kernels("convolve", k.Convolve(geometry, lists, values, k.address(means), k.address(logits)))
        return logits if linear.bias is None else logits + linear.bias.detach()[:, None]

    def backward(self, gradient: Tensor, this: Pass) -> Tensor:
        """From the gradient (classes, N) at the logits to that at the features (C, N), and those of the weights."""
        means, linear, weights = self._features, self.head.linear, self.layer.weights
        if means is None:
            raise RuntimeError("the backward pass of the classifier follows its forward pass")
        dense = None
        if self.layer.index is None or this.request.dense:
            dense = gradient @ means.T
        products = None
        if this.request.signs is not None:
            signs = this.request.signs[self.head.layer].to(means.dtype)
            products = (signs @ gradient @ means.T).T.double()[..., None]
        if linear.bias is not None:
            linear.bias.grad = gradient.sum(1)
        if self.layer.index is None:
            assert dense is not None  # noqa: S101 - made above
            if self.head.dct is not None:
                self.head.dct.alpha.grad = (dense * self.head.dct.dct.weight).sum()
            values = weights.select(dense)
            at_means = self._weight().T @ gradient
        else:
            values, at_means = torch.empty_like(weights.values), torch.empty_like(means)
            geometry, by_output = self._geometry(means), self.layer.index.by_output.lists
            x, dz = k.address(means), k.address(gradient)
            self.kernels("weight_gradient", k.WeightGradient(geometry, by_output, x, dz, k.address(values)))
            self.kernels(
                "input_gradient",
                k.InputGradient(
                    geometry, self.layer.index.by_input.lists, k.address(weights.values), dz, k.address(at_means), 0
                ),
            )
        this.add(self.head.layer, None, values=values, dense=dense if this.request.dense else None, products=products)
        return at_means

    def _weight(self) -> Tensor:
        weight = self.head.linear.weight.detach()
        if self.head.dct is not None:
            weight = weight + self.head.dct.alpha.detach() * self.head.dct.dct.weight
        return weight

    def _geometry(self, means: Tensor) -> k.Geometry:
        channels, batch = means.shape
        return k.Geometry(channels, 1, 1, self.head.linear.out_features, 1, 1, 1, 1, 0, batch)
