"""DyReLU, max(a1 u + b1, a2 u + b2) with coefficients (a1, a2, b1, b2) for each channel and image, kernel by kernel."""

import torch
from torch import Tensor

from east.engine.cuda import launch
from east.engine.cuda.kernels import dyrelu as kernels
from east.engine.cuda.operands import Norm, Source
from east.engine.cuda.tiles import PositionTiling, accumulation_type


def finish_input(source: Source, residual: Source | None, u: Tensor, means: Tensor) -> None:
    """Add a residual to a source, and find the means over positions: the input of a DyReLU.

    Args:
        source: (C, H, W, N); `rectify` of its own applies before the sum.
        residual: likewise; None counts as 0.
        u: (C, H, W, N), all of it written; may be the memory of `residual.data` or of `source.data`.
        means: (C, N) in the type of `accumulation_type`, all of it written.
    """
    cut = PositionTiling.of(u.shape)
    partial = u.new_empty(len(u), cut.rows, u.shape[-1], dtype=accumulation_type(u.dtype))
    kernels.finish_input_kernel[cut.blocks, len(u)](
        **launch.read_as("x", source),
        **launch.read_as("residual", residual),
        **launch.cut_by_images(u),
        u=u,
        partial=partial,
    )
    torch.sum(partial, dim=1, out=means).div_(cut.positions)


def apply(u: Tensor, coefficients: Tensor, y: Tensor) -> None:
    """Take the larger line, y = max(a1 u + b1, a2 u + b2).

    Args:
        u: (C, H, W, N).
        coefficients: (C, 4, N) a1, a2, b1, b2 in the type of `accumulation_type`, contiguous.
        y: (C, H, W, N), all of it written; may be the memory of `u`.
    """
    cut = PositionTiling.of(u.shape)
    kernels.apply_kernel[cut.blocks, len(u)](u=u, coefficients=coefficients, y=y, **launch.cut_by_images(u))


def gradient_of_coefficients(u: Tensor, coefficients: Tensor, dy: Tensor, out: Tensor) -> None:
    """The gradient of the coefficients; where both lines are equal each has half of it, as in PyTorch.

    Args:
        u: (C, H, W, N).
        coefficients: (C, 4, N), contiguous.
        dy: (C, H, W, N) the gradient at the output.
        out: (C, 4, N), in the type of `accumulation_type`, all of it written.
    """
    cut = PositionTiling.of(u.shape)
    partial = out.new_empty(len(u), cut.rows, *out.shape[1:])
    kernels.gradient_of_coefficients_kernel[cut.blocks, len(u)](
        u=u, coefficients=coefficients, dy=dy, partial=partial, **launch.cut_by_images(u)
    )
    torch.sum(partial, dim=1, out=out)


def gradient_of_input(
    u: Tensor,
    coefficients: Tensor,
    dy: Tensor,
    at_means: Tensor,
    z: Tensor,
    stored: Tensor | None,
    norm: Norm,
    g: Tensor,
) -> None:
    """Find g = dy * slope of the larger line + at_means, and batch norm's sums of it, for `backward.through_norm`.

    Args:
        u: (C, H, W, N) the input of the DyReLU.
        coefficients: (C, 4, N), contiguous.
        dy: (C, H, W, N) the gradient at its output.
        at_means: (C, N) the gradient at the means of u, divided by the number of positions; contiguous.
        z: (C, H, W, N) what the batch norm normalised.
        stored: (C + 1,) int32 as in `Source`, for `z`.
        norm: `partial` is written.
        g: (C, H, W, N), all of it written; may be the memory of `dy`, or of `u`.
    """
    cut = PositionTiling.of(u.shape)
    kernels.gradient_of_input_kernel[cut.blocks, len(u)](
        **launch.cut_by_images(u),
        u=u,
        coefficients=coefficients,
        dy=dy,
        at_means=at_means,
        z=z,
        stored=stored,
        mean=norm.mean,
        inverse_deviation=norm.inverse_deviation,
        g=g,
        partial=norm.partial,
        stride=norm.partial.stride(0),
    )
