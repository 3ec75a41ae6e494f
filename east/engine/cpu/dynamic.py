"""A DyReLU in the layout of the kernels: its linear layers, its coefficients, and the gradients of both."""

import torch
from torch import Tensor, nn

from east.engine.cpu import kernels as k
from east.models.dyrelu import DyReLU


class Dynamic:
    """A DyReLU bound to memory.

    Args:
        dyrelu: the unit.
        u: (C, G, H, W, 32) memory for its input.
        batch: images of a batch.
        kernels: the compiled kernels.

    Attributes:
        means: (C, G, 32) the means of the input over positions; whoever writes `u` writes them.
        coefficients: (C, 4, G, 32) of the last forward pass.
        at_means: (C, G, 32) the gradient at the means, after a backward pass.
    """

    def __init__(self, dyrelu: DyReLU, u: Tensor, batch: int, kernels: k.KernelSet) -> None:
        channels, groups, height, width, _ = u.shape
        hidden = dyrelu.fc1.out_features
        self.dyrelu, self.u, self.batch, self.kernels = dyrelu, u, batch, kernels
        self.channels, self.height, self.width = channels, height, width
        self.means, self.at_means = (u.new_empty(channels, groups, k.LANES) for _ in range(2))
        self._hidden, self._at_hidden = (u.new_empty(hidden, groups, k.LANES) for _ in range(2))
        self._code, self.coefficients, self._at_coefficients = (
            u.new_empty(channels, 4, groups, k.LANES) for _ in range(3)
        )
        self._gradients = {
            layer: (torch.empty_like(layer.weight), torch.empty_like(layer.bias)) for layer in (dyrelu.fc1, dyrelu.fc2)
        }

    def forward(self, y: Tensor) -> None:
        """Write the output y (C, G, H, W, 32)."""
        self._multiply(self.dyrelu.fc1, self.means, self._hidden, rectify=True)
        self._multiply(self.dyrelu.fc2, self._hidden, self._code, rectify=False)
        sizes = (self.channels, self.batch, float(self.dyrelu.beta))
        code, coefficients = k.address(self._code), k.address(self.coefficients)
        self.kernels("coefficients", k.Coefficients(*sizes, code, coefficients))
        shape = (self.channels, self.height, self.width, self.batch)
        self.kernels("dyrelu_apply", k.DyReLUApply(*shape, self._planes, coefficients, k.address(y)))

    def backward(self, gradient: Tensor) -> None:
        """From the gradient (C, G, H, W, 32) at the output to those at the means and of the unit's parameters."""
        shape = (self.channels, self.height, self.width, self.batch)
        coefficients, at_coefficients = k.address(self.coefficients), k.address(self._at_coefficients)
        dy = k.address(gradient)
        self.kernels("dyrelu_sums", k.DyReLUSums(*shape, self._planes, coefficients, dy, at_coefficients))
        sizes = (self.channels, self.batch, float(self.dyrelu.beta))
        code = k.address(self._code)
        self.kernels("coefficients_backward", k.CoefficientsBackward(*sizes, code, at_coefficients))
        self._differentiate(self.dyrelu.fc2, self._hidden, None, self._at_coefficients, self._at_hidden)
        self._differentiate(self.dyrelu.fc1, self.means, self._hidden, self._at_hidden, self.at_means)

    @property
    def _planes(self) -> k.Planes:
        return k.Planes(k.address(self.u))

    def _multiply(self, layer: nn.Linear, x: Tensor, y: Tensor, *, rectify: bool) -> None:
        sizes = (layer.in_features, layer.out_features, self.batch)
        parameters = (k.address(layer.weight), k.address(layer.bias))
        self.kernels("linear", k.Linear(*sizes, *parameters, k.address(x), k.address(y), int(rectify)))

    def _differentiate(self, layer: nn.Linear, x: Tensor, y: Tensor | None, dy: Tensor, dx: Tensor) -> None:
        sizes = (layer.in_features, layer.out_features, self.batch)
        gradients = self._gradients[layer]
        activations = (k.address(tensor) for tensor in (x, y, dy, dx))
        found = (k.address(gradient) for gradient in gradients)
        self.kernels("linear_backward", k.LinearBackward(*sizes, k.address(layer.weight), *activations, *found))
        for parameter, gradient in zip((layer.weight, layer.bias), gradients, strict=True):
            if parameter.requires_grad:
                parameter.grad = gradient
