"""The arguments of kernels, by the names of their parameters."""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from east.engine.cuda.operands import Consumer, Norm, Source
from east.engine.cuda.tiles import TILE, PositionTiling, parts_of, power_of_two, tiling, warps_of
from east.engine.graph.index import Grouped
from east.models.description import Window

Arguments = dict[str, Any]

Products = tuple[Tensor, Tensor, Tensor]
"""Parts of the gradients of a convolution's non-zeros: `start` of its lists, (capacity, parts) products, and their
sums."""


def accumulator(dtype: torch.dtype) -> Any:
    """Triton's name of `accumulation_type(dtype)`."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def read(source: Source) -> tuple[Tensor | None, ...]:
    """An activation: data, scale, shift and stored channels."""
    return source.data, source.scale, source.shift, source.stored


def read_as(prefix: str, source: Source | None) -> Arguments:
    """An activation, or that there is none."""
    values = (None,) * 4 if source is None else read(source)
    names = (prefix, f"{prefix}_scale", f"{prefix}_shift", f"{prefix}_stored")
    rectify = source is not None and source.rectify
    return dict(zip(names, values, strict=True)) | {f"{prefix.upper()}_RECTIFY": rectify}


def walk(lists: Grouped) -> Arguments:
    """The non-zeros of a convolution."""
    return {"start": lists.start, "ends": lists.channel, "taps": lists.tap, "places": lists.place}


def shape_of(window: Window) -> Arguments:
    """Kernel size, stride and padding."""
    return {"KERNEL": window.kernel, "STRIDE": window.stride, "PADDING": window.padding}


def cut_of(plane: Tensor) -> Arguments:
    """How the planes of an activation (C, H, W, N) are cut along rows."""
    cut = tiling(plane.shape, plane.dtype)
    return {
        "segments_of_row": cut.segments_of_row,
        "segments": cut.segments,
        "N": plane.shape[-1],
        "SEGMENT": cut.segment,
        "SEGMENTS": cut.segments_of_block,
        "ACC": accumulator(plane.dtype),
        "num_warps": cut.warps,
    }


def cut_by_images(plane: Tensor) -> Arguments:
    """How the planes of an activation (C, H, W, N) are cut by positions and images."""
    cut = PositionTiling.of(plane.shape)
    return {
        "positions": cut.positions,
        "N": plane.shape[-1],
        "POSITIONS": cut.positions_of_block,
        "IMAGES": cut.images_of_block,
        "ACC": accumulator(plane.dtype),
        "num_warps": cut.warps,
    }


def cut_anyhow(plane: Tensor) -> tuple[tuple[int, int], Arguments]:
    """How planes are cut where it does not matter what stands where: the grid of programs, and arguments."""
    numbers = plane[0].numel()
    block = min(TILE, power_of_two(numbers))
    arguments = {"plane": numbers, "BLOCK": block, "ACC": accumulator(plane.dtype), "num_warps": warps_of(block)}
    return (-(-numbers // block), len(plane)), arguments


def forward_of(norm: Norm, *, training: bool) -> Arguments:
    """A batch norm in the forward pass."""
    return {
        "partial": norm.partial,
        "stride": norm.partial.stride(0),
        "weight": norm.weight,
        "bias": norm.bias,
        "running_mean": norm.running_mean,
        "running_variance": norm.running_variance,
        "mean": norm.mean,
        "inverse_deviation": norm.inverse_deviation,
        "scale": norm.scale,
        "shift": norm.shift,
        "TRAINING": training,
        "MOMENTUM": norm.momentum,
        "EPSILON": norm.epsilon,
    }


def backward_of(norm: Norm | None, *, training: bool) -> Arguments:
    """A batch norm in the backward pass, or that there is none."""
    names = ("partial", "weight", "inverse_deviation", "weight_gradient", "bias_gradient")
    vectors: Arguments = {name: None if norm is None else getattr(norm, name) for name in names}
    return vectors | {"stride": 0 if norm is None else norm.partial.stride(0), "TRAINING": training}


def reader_of(name: str, consumer: Consumer | None) -> Arguments:
    """A convolution that reads an activation, or that there is none: `name` is a or b."""
    window = Window(1, 1, 0) if consumer is None else consumer.window
    arguments: Arguments = {f"{name.upper()}_{key}": value for key, value in shape_of(window).items()}
    arguments |= dict.fromkeys(f"{name}_{key}" for key in ("ends", "taps", "places", "values", "dz"))
    arguments |= {f"{name}_height": 0, f"{name}_width": 0} | summed_up(name, None)
    if consumer is None:
        return arguments
    _, height, width, _ = consumer.dz.shape
    found = walk(consumer.lists) | {"values": consumer.values, "dz": consumer.dz, "height": height, "width": width}
    return arguments | summed_up(name, consumer.parts) | {f"{name}_{key}": value for key, value in found.items()}


def summed_up(name: str, products: Products | None) -> Arguments:
    """Parts of gradients, or that there are none: `name` is a or b."""
    start, parts, gradient = products or (None, None, None)
    size = 0 if gradient is None else len(gradient)
    return {
        f"{name}_start": start,
        f"{name}_products": parts,
        f"{name}_value_gradient": gradient,
        f"{name}_size": size,
    }


def parts(plane: Tensor) -> int:
    """Parts of the planes of an activation (C, H, W, N) over which products are summed."""
    return parts_of(plane.shape, plane.dtype)
