"""What kernels work on: activations, batch norm, and who reads an activation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from east.engine.cuda.tiles import PositionTiling, accumulation_type, blocks_of
from east.engine.graph.index import Grouped
from east.engine.graph.memory import Buffer
from east.models.described import BatchNorm
from east.models.description import Window


@dataclass(frozen=True, eq=False)
class Source:
    """An activation that can be read: relu(scale * data + shift), or a part of that.

    Args:
        data: (C, H, W, N).
        scale: (C,) in the type of `accumulation_type`; None where `data` is the activation itself.
        shift: (C,) likewise; None exactly where `scale` is.
        rectify: whether negative values become 0.
        stored: (C + 1,) int32 `start` of the lists by output of the convolution that wrote `data`. A channel without
            non-zeros was not written, and counts as 0. None where every channel is written.
    """

    data: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    rectify: bool = False
    stored: Tensor | None = None


class SourceBuffer(Buffer):
    """An activation: how it is read, and where the gradient (C, H, W, N) at it goes."""

    def __init__(self, source: Source, gradient: Tensor | None) -> None:
        super().__init__(gradient)
        self.source = source


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm bound to memory; vectors are (C,), all tensors in the type of `accumulation_type`.

    Args:
        weight: its parameter.
        bias: its parameter.
        running_mean: its running mean.
        running_variance: its running variance.
        momentum: as in nn.BatchNorm2d.
        epsilon: as in nn.BatchNorm2d.
        mean: of the batch in training, else the running one; written by the forward pass.
        inverse_deviation: likewise.
        scale: of the affine map scale * z + shift that batch norm comes to; written by the forward pass.
        shift: likewise.
        weight_gradient: written by the backward pass.
        bias_gradient: likewise.
        factors: (3, C) the gradient at z is factors[0] * g + factors[1] * (z - mean) + factors[2]; the backward pass
            writes them where it takes more than one kernel.
        partial: (C, blocks, 2) sums of parts of a channel, in both passes.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_variance: Tensor
    momentum: float
    epsilon: float
    mean: Tensor
    inverse_deviation: Tensor
    scale: Tensor
    shift: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor
    factors: Tensor
    partial: Tensor

    @classmethod
    def none(cls, shape: tuple[int, int, int, int], z: Tensor) -> "Norm":
        """Of a convolution without batch norm: statistics that stay, by which nothing changes.

        Args:
            shape: (C, H, W, N) of z.
            z: the output of the convolution.
        """
        module = nn.BatchNorm2d(shape[0], eps=0.0, dtype=accumulation_type(z.dtype), device=z.device)
        return cls.of(module, shape, z.dtype)

    @classmethod
    def of(cls, module: BatchNorm, shape: tuple[int, int, int, int], dtype: torch.dtype) -> "Norm":
        """Bind a batch norm of the network to new memory on its device.

        Args:
            module: with parameters and running statistics in the type of `accumulation_type(dtype)`.
            shape: (C, H, W, N) of what is normalised.
            dtype: the type in which activations are stored.
        """
        if module.running_mean is None or module.running_var is None or module.momentum is None:
            raise ValueError("the kernels need a batch norm with running statistics and a momentum")
        blocks = max(blocks_of(shape, dtype), PositionTiling.of(shape).blocks)
        weight, bias = module.weight.detach(), module.bias.detach()
        mean, inverse_deviation, scale, shift, weight_gradient, bias_gradient = weight.new_empty(6, shape[0])
        return cls(
            weight,
            bias,
            module.running_mean,
            module.running_var,
            module.momentum,
            module.eps,
            mean,
            inverse_deviation,
            scale,
            shift,
            weight_gradient,
            bias_gradient,
            factors=weight.new_empty(3, shape[0]),
            partial=weight.new_empty(shape[0], blocks, 2),
        )


@dataclass(frozen=True, eq=False)
class Output:
    """The output of a unit (convolution, batch norm, residual, activation) as its backward pass sees it.

    Args:
        z: (C, H, W, N) the output of the convolution.
        stored: (C + 1,) int32 as in `Source`, for `z`.
        norm: the batch norm.
        rectify: whether a ReLU follows.
        y: (C, H, W, N) the activation, where it is stored because a residual was added to it; else it is
            relu(scale * z + shift) or that without relu.
    """

    z: Tensor
    stored: Tensor | None
    norm: Norm
    rectify: bool
    y: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Consumer:
    """A convolution that reads an activation x (C, H, W, N), as the backward pass at x sees it.

    Args:
        lists: its non-zeros by input channel.
        values: (at least capacity,) the weights in the order of places, in the type of `accumulation_type`.
        window: what it looks at.
        dz: (Co, Ho, Wo, N) the gradient at its output; channels without non-zeros need not be written.
        products: (capacity, parts_of(shape of x, dtype)) memory for parts of the gradients of its non-zeros.
        value_gradient: (at least capacity,) where these gradients go, in the order of places; 0 beyond the non-zeros.
    """

    lists: Grouped
    values: Tensor
    window: Window
    dz: Tensor
    products: Tensor
    value_gradient: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the gradients of the non-zeros are summed up from, see `launch.Products`."""
        return self.lists.start, self.products, self.value_gradient
