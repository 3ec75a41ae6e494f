"""Dense gradients contracted with random signs over output channels, without the dense gradients."""

import math

import torch
from torch import Tensor

from east.engine.cuda import launch
from east.engine.cuda.kernels import sketch as kernels
from east.engine.cuda.operands import Source
from east.engine.cuda.tiles import accumulation_type, power_of_two
from east.models.description import Window

LEAST = 16
"""The smallest side of the matrices that matrix units multiply."""

CHANNELS = 64
"""Channels that are multiplied at once, at most."""

NUMBERS = 64
"""Numbers of each channel that are multiplied at once, at most."""

PROGRAMS = 512
"""About so many programs share a layer: some for each multiprocessor of a large GPU."""

PRECISIONS = {torch.bfloat16: "tf32", torch.float32: "tf32x3", torch.float64: "ieee"}
"""Type in which activations are stored -> how they are multiplied: TF32 is more exact than bf16, TF32 in three parts
about as exact as float32."""


def sketched(source: Source, dz: Tensor, signs: Tensor, window: Window) -> Tensor:
    """The dense gradient of a convolution, contracted with signs.

    As the signs are summed up first, this is the gradient of a convolution with as many outputs as there are probes.

    Args:
        source: its input (Ci, H, W, N).
        dz: (Co, Ho, Wo, N) the gradient at its output, all of it written.
        signs: (probes, Co) each +1 or -1.
        window: of the convolution.

    Returns:
        (Ci, probes, taps) in float64.
    """
    return _correlate(source, _combine(dz, signs.contiguous()), window).view(len(source.data), len(signs), -1)


def _combine(dz: Tensor, signs: Tensor) -> Tensor:
    """Sums over channels with each probe's signs: (probes, Ho, Wo, N)."""
    channels, plane = len(dz), dz[0].numel()
    maps = dz.new_empty(len(signs), *dz.shape[1:], dtype=accumulation_type(dz.dtype))
    numbers = min(NUMBERS, max(LEAST, power_of_two(plane // PROGRAMS)))
    kernels.combine_kernel[(math.ceil(plane / numbers),)](
        dz=dz,
        signs=signs,
        maps=maps,
        channels=channels,
        probes=len(signs),
        plane=plane,
        PROBES=max(LEAST, power_of_two(len(signs))),
        CHANNELS=min(CHANNELS, max(LEAST, power_of_two(channels))),
        NUMBERS=numbers,
        ACC=launch.accumulator(dz.dtype),
        PRECISION=PRECISIONS[dz.dtype],
        num_warps=4,
    )
    return maps


def _correlate(source: Source, maps: Tensor, window: Window) -> Tensor:
    """Products of a convolution's input with maps at its output, seen through each tap: (Ci, probes * taps)."""
    x, (probes, out_height, out_width, batch) = source.data, maps.shape
    channels, _, width, _ = x.shape
    plane, columns = x[0].numel(), probes * window.kernel**2
    channels_of_group = min(CHANNELS, max(LEAST, power_of_two(channels)))
    groups = math.ceil(channels / channels_of_group)
    steps = max(1, plane * groups // (NUMBERS * PROGRAMS))
    parts = math.ceil(plane / (NUMBERS * steps))
    products = maps.new_empty(parts, channels, columns)
    kernels.correlate_kernel[parts, groups](
        **launch.read_as("x", source),
        **launch.shape_of(window),
        maps=maps,
        products=products,
        channels=channels,
        width=width,
        out_height=out_height,
        out_width=out_width,
        plane=plane,
        columns=columns,
        steps=steps,
        N=batch,
        ACC=launch.accumulator(x.dtype),
        PRECISION=PRECISIONS[x.dtype],
        CHANNELS=channels_of_group,
        COLUMNS=max(LEAST, power_of_two(columns)),
        NUMBERS=NUMBERS,
        num_warps=4,
    )
    return products.sum(0, dtype=torch.float64)
