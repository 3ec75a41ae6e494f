"""A DyReLU in the layout of the kernels: PyTorch finds the coefficients, kernels do the rest."""

import torch
from torch import Tensor

from east.engine.sparse import kernels as k
from east.models.dyrelu import DyReLU


class Dynamic:
    """A DyReLU bound to memory.

    Args:
        dyrelu: the unit.
        u: (C, H, W, N) memory for its input.
        kernels: the compiled kernels.

    Attributes:
        means: (C, N) the means of the input over positions; whoever writes `u` writes them.
    """

    def __init__(self, dyrelu: DyReLU, u: Tensor, kernels: k.KernelSet) -> None:
        channels, height, width, batch = u.shape
        self.dyrelu, self.u, self.kernels = dyrelu, u, kernels
        self.positions = height * width
        self.means = u.new_empty(channels, batch)
        self._sizes = (channels, self.positions, batch)
        self._means: Tensor | None = None
        self._coefficients: Tensor | None = None

    def forward(self, y: Tensor, training: bool) -> None:
        """Write the output y (C, H, W, N)."""
        with torch.set_grad_enabled(training):
            means = self.means.T.contiguous().requires_grad_(training)
            coefficients = self.dyrelu.coefficients(means).permute(1, 2, 0).contiguous()
        self._means, self._coefficients = means, coefficients
        planes = k.Planes(k.address(self.u))
        self.kernels("dyrelu_apply", k.DyReLUApply(*self._sizes, planes, k.address(coefficients), k.address(y)))

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient (C, H, W, N) at the output to those of the unit's parameters, left in their `.grad`.

        Returns:
            The coefficients (C, 4, N) of the forward pass, and the gradient (C, N) that reaches every position of the
            input through its means.
        """
        if self._coefficients is None or self._means is None:
            raise RuntimeError("the backward pass of a DyReLU follows its forward pass in training")
        of_coefficients = torch.empty_like(self._coefficients)
        self.kernels(
            "dyrelu_sums",
            k.DyReLUSums(
                *self._sizes,
                k.Planes(k.address(self.u)),
                k.address(self._coefficients.detach()),
                k.address(gradient),
                k.address(of_coefficients),
            ),
        )
        self._coefficients.backward(of_coefficients)  # type: ignore[no-untyped-call]
        at_means = self._means.grad
        assert at_means is not None  # noqa: S101
        return self._coefficients.detach(), (at_means.T / self.positions).contiguous()
