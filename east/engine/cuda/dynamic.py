"""A DyReLU in the layout of the kernels: PyTorch finds the coefficients, kernels do the rest."""

import torch
from torch import Tensor

from east.engine.cuda import dyrelu as kernels
from east.engine.cuda.lists import Output, Source
from east.engine.cuda.tiles import accumulation_type
from east.models.dyrelu import DyReLU


class Dynamic:
    """A DyReLU bound to memory.

    Args:
        dyrelu: the unit.
        u: (C, H, W, N) memory for its input.
    """

    def __init__(self, dyrelu: DyReLU, u: Tensor) -> None:
        self.dyrelu, self.u = dyrelu, u
        self._means_of_u = u.new_empty(u.shape[0], u.shape[-1], dtype=accumulation_type(u.dtype))
        self._means: Tensor | None = None
        self._coefficients: Tensor | None = None

    def forward(self, source: Source, residual: Source | None, y: Tensor, *, learns: bool) -> None:
        """Write the output y (C, H, W, N) for the input source + residual.

        Args:
            source: the input without the residual.
            residual: what is added to it.
            y: the output.
            learns: whether a backward pass follows.
        """
        kernels.finish_input(source, residual, self.u, self._means_of_u)
        with torch.set_grad_enabled(learns):
            means = self._means_of_u.T.contiguous().requires_grad_(learns)
            coefficients = self.dyrelu.coefficients(means).permute(1, 2, 0).contiguous()
        if learns:
            self._means, self._coefficients = means, coefficients
        kernels.apply(self.u, coefficients.detach(), y)

    def backward(self, output: Output, gradient: Tensor) -> None:
        """From the gradient at the DyReLU's output to that at batch norm's, in place.

        The gradients of the DyReLU's parameters are left in their `.grad`, and the sums that batch norm needs where
        `backward.through_norm` looks for them.

        Args:
            output: the output of the unit before its DyReLU.
            gradient: (C, H, W, N).
        """
        coefficients, means = self._coefficients, self._means
        if coefficients is None or means is None:
            raise RuntimeError("the backward pass of a DyReLU follows its forward pass in training")
        # PyTorch's graph must not outlive the step: what it keeps belongs to the stream on which it was recorded.
        self._coefficients = self._means = None
        values = coefficients.detach()
        of_coefficients = torch.empty_like(values)
        kernels.gradient_of_coefficients(self.u, values, gradient, of_coefficients)
        coefficients.backward(of_coefficients)  # type: ignore[no-untyped-call]
        at_means = means.grad
        assert at_means is not None  # noqa: S101
        _, height, width, _ = self.u.shape
        at_positions = (at_means.T / (height * width)).contiguous()
        kernels.gradient_of_input(
            *(self.u, values, gradient, at_positions, output.z, output.stored, output.norm, gradient)
        )
