"""The bytes that each kernel reads and writes, counted from shapes and non-zeros.

A number counts each time it is read, as if no cache kept it between programs. That taps reach beyond the image is left
out, as are lists and vectors, which are small. The functions are named for what they count in `forward`, `backward` and
`dyrelu`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from east.engine.cuda.tiles import PositionTiling, accumulation_type, blocks_of, parts_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: its name.
        read: bytes.
        written: bytes.
    """

    kernel: str
    read: int
    written: int

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.read + self.written


@dataclass(frozen=True)
class Reader:
    """A convolution that reads an activation.

    Args:
        nonzeros: how many it has.
        shape: (Co, Ho, Wo, N) of its output.
    """

    nonzeros: int
    shape: Shape


def convolve(
    shape: Shape, dtype: torch.dtype, nonzeros: int, stored: int, *, constant: int = 0, training: bool = True
) -> list[Launch]:
    """A sparse convolution with its statistics.

    Args:
        shape: (Co, Ho, Wo, N) of the output.
        dtype: the type in which activations are stored.
        nonzeros: how many the convolution has.
        stored: output channels that have any.
        constant: non-zeros whose input channel is constant, so that nothing is read.
        training: whether there are statistics.
    """
    plane = _plane(shape, dtype)
    blocks = blocks_of(shape, dtype)
    partial = 0 if blocks == 1 or not training else stored * blocks * 2 * _accumulated(dtype)
    launches = [Launch("convolve", (nonzeros - constant) * plane, stored * plane + partial)]
    if not training or blocks > 1:
        launches.append(Launch("finish_statistics", partial, 0))
    return launches


def normalise(shape: Shape, dtype: torch.dtype) -> list[Launch]:
    """Statistics in training of an output (C, H, W, N) that PyTorch wrote."""
    partial = shape[0] * blocks_of(shape, dtype) * 2 * _accumulated(dtype)
    return [
        Launch("statistics", shape[0] * _plane(shape, dtype), partial),
        Launch("finish_statistics", partial, 0),
    ]


def finish_block(shape: Shape, dtype: torch.dtype, stored: int, residual: int = 0) -> list[Launch]:
    """The output (C, H, W, N) of a block.

    Args:
        shape: of the output.
        dtype: the type in which activations are stored.
        stored: channels of the source that were written.
        residual: channels of the residual that were written.
    """
    plane = _plane(shape, dtype)
    return [Launch("finish_block", (stored + residual) * plane, shape[0] * plane)]


def through_unit(
    shape: Shape,
    dtype: torch.dtype,
    stored: int,
    consumers: Sequence[Reader],
    *,
    read: int,
    live: int,
    direct: bool,
    activation: bool,
    rectify: bool,
    keep: bool,
    everything: bool,
) -> list[Launch]:
    """The gradient through a unit.

    Args:
        shape: (C, H, W, N) of its output.
        dtype: the type in which activations are stored.
        stored: channels that have non-zeros.
        consumers: what reads the output.
        read: channels that a gradient reaches.
        live: channels that a gradient reaches and that have non-zeros.
        direct: whether there is a gradient from elsewhere.
        activation: whether the output is stored (`Output.y`).
        rectify: as in `Output`.
        keep: as in `backward.through_unit`.
        everything: likewise.
    """
    plane = _plane(shape, dtype)
    unchanged = direct and not consumers and not rectify
    wanted = read if everything else live
    kept = shape[0] if keep else wanted
    incoming = (live + read * (direct + activation)) * plane + _gathered(consumers, dtype)
    whole = blocks_of(shape, dtype) == 1
    g = 0 if unchanged or (whole and not keep) else kept * plane
    dz = (shape[0] if everything else stored) * plane
    if whole:
        return [Launch("gather", incoming, g + dz)]
    parts = _parts(shape, dtype, consumers) + shape[0] * blocks_of(shape, dtype) * 2 * _accumulated(dtype)
    return [
        Launch("gather", incoming, g + parts),
        Launch("finish", parts, 0),
        Launch("apply_gradient", (wanted + live) * plane, dz),
    ]


def through_norm(shape: Shape, dtype: torch.dtype, stored: int, *, everything: bool) -> list[Launch]:
    """Batch norm's backward pass where the gradient (C, H, W, N) at its output is known.

    Args:
        shape: of the output.
        dtype: the type in which activations are stored.
        stored: channels that have non-zeros.
        everything: as in `backward.through_norm`.
    """
    plane = _plane(shape, dtype)
    partial = shape[0] * PositionTiling.of(shape).blocks * 2 * _accumulated(dtype)
    wanted = shape[0] if everything else stored
    return [
        Launch("finish", partial, 0),
        Launch("apply_gradient", (wanted + stored) * plane, wanted * plane),
    ]


def gather(shape: Shape, dtype: torch.dtype, consumers: Sequence[Reader], *, read: int, direct: bool) -> list[Launch]:
    """The gradient at an activation (C, H, W, N) that is stored; arguments as in `through_unit`."""
    plane = _plane(shape, dtype)
    incoming = read * plane * (1 + direct) + _gathered(consumers, dtype)
    if blocks_of(shape, dtype) == 1 or not consumers:
        return [Launch("gather", incoming, shape[0] * plane)]
    parts = _parts(shape, dtype, consumers)
    return [Launch("gather", incoming, shape[0] * plane + parts), Launch("finish", parts, 0)]


def value_gradients(shape: Shape, dtype: torch.dtype, nonzeros: int, stored: int) -> list[Launch]:
    """The gradients of non-zeros alone; arguments as in `convolve`."""
    parts = nonzeros * parts_of(shape, dtype) * _accumulated(dtype)
    return [Launch("value_products", (stored + nonzeros) * _plane(shape, dtype), parts), Launch("finish", parts, 0)]


def finish_input(shape: Shape, dtype: torch.dtype, stored: int, residual: int = 0) -> list[Launch]:
    """The input of a DyReLU and its means; arguments as in `finish_block`."""
    plane = _plane(shape, dtype)
    partial = shape[0] * PositionTiling.of(shape).rows * shape[3] * _accumulated(dtype)
    return [
        Launch("finish_input", (stored + residual) * plane, shape[0] * plane + partial),
        Launch("sum", partial, shape[0] * shape[3] * _accumulated(dtype)),
    ]


def apply(shape: Shape, dtype: torch.dtype) -> list[Launch]:
    """A DyReLU with given coefficients."""
    numbers = shape[0] * _plane(shape, dtype)
    return [Launch("apply", numbers, numbers)]


def gradient_of_coefficients(shape: Shape, dtype: torch.dtype) -> list[Launch]:
    """The gradient of a DyReLU's coefficients."""
    partial = 4 * shape[0] * PositionTiling.of(shape).rows * shape[3] * _accumulated(dtype)
    return [
        Launch("gradient_of_coefficients", 2 * shape[0] * _plane(shape, dtype), partial),
        Launch("sum", partial, 4 * shape[0] * shape[3] * _accumulated(dtype)),
    ]


def gradient_of_input(shape: Shape, dtype: torch.dtype, stored: int) -> list[Launch]:
    """The gradient at the input of a DyReLU; `stored` channels of the convolution before have non-zeros."""
    plane = _plane(shape, dtype)
    partial = shape[0] * PositionTiling.of(shape).blocks * 2 * _accumulated(dtype)
    return [Launch("gradient_of_input", (2 * shape[0] + stored) * plane, shape[0] * plane + partial)]


def _plane(shape: Shape, dtype: torch.dtype) -> int:
    return math.prod(shape[1:]) * dtype.itemsize


def _accumulated(dtype: torch.dtype) -> int:
    return accumulation_type(dtype).itemsize


def _gathered(consumers: Sequence[Reader], dtype: torch.dtype) -> int:
    return sum(consumer.nonzeros * _plane(consumer.shape, dtype) for consumer in consumers)


def _parts(shape: Shape, dtype: torch.dtype, consumers: Sequence[Reader]) -> int:
    return sum(consumer.nonzeros for consumer in consumers) * parts_of(shape, dtype) * _accumulated(dtype)
