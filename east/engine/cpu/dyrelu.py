"""A DyReLU bound to memory for the compiled kernels."""

from functools import partial

import torch
from torch import Tensor, nn

from east.engine.cpu import bindings as k
from east.models.dyrelu import DyReLU


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
