"""The classifier, which PyTorch executes: it takes next to no time."""

import torch.nn.functional as F
from torch import Tensor

from east.engine.cpu.buffers import Pass
from east.engine.cpu.network import Head
from east.sparse.active import ActiveWeights


class HeadProgram:
    """A linear layer with all its weights.

    Args:
        head: the classifier.
        weights: the active weights of its masked layer.
    """

    def __init__(self, head: Head, weights: ActiveWeights) -> None:
        self.head, self.weights = head, weights
        self._features: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of features (N, C)."""
        self._features = features
        bias = self.head.linear.bias
        return F.linear(features, self._weight(), None if bias is None else bias.detach())

    def backward(self, gradient: Tensor, this: Pass) -> Tensor:
        """From the gradient (N, classes) at the logits to that at the features (N, C), and those of the weights."""
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
        return gradient @ self._weight()

    def _weight(self) -> Tensor:
        weight = self.head.linear.weight.detach()
        if self.head.dct is not None:
            weight = weight + self.head.dct.alpha.detach() * self.head.dct.dct.weight
        return weight
