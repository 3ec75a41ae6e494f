"""Triton kernels of the forward pass."""

import triton
import triton.language as tl

from east.engine.cuda.kernels.common import (
    activate,
    entry_of,
    is_stored,
    kernel,
    plane_of,
    shifted_forward,
    tile_of,
)


@triton.jit
def write_affine(channel, mean, variance, weight, bias, mean_to, inverse_to, scale, shift, EPSILON: tl.constexpr):
    """Batch norm's vectors for a channel that is normalised with this mean and variance."""
    inverse = 1.0 / tl.sqrt(variance + EPSILON)
    factor = tl.load(weight + channel) * inverse
    tl.store(mean_to + channel, mean)
    tl.store(inverse_to + channel, inverse)
    tl.store(scale + channel, factor)
    tl.store(shift + channel, tl.load(bias + channel) - mean * factor)


@triton.jit
def update_running(channel, mean, variance, count, running_mean, running_variance, MOMENTUM: tl.constexpr):
    """Running statistics, as nn.BatchNorm2d updates them after a batch of `count` numbers a channel."""
    old_mean = tl.load(running_mean + channel)
    old_variance = tl.load(running_variance + channel)
    unbiased = variance * (count / (count - 1))
    tl.store(running_mean + channel, old_mean * (1 - MOMENTUM) + mean * MOMENTUM)
    tl.store(running_variance + channel, old_variance * (1 - MOMENTUM) + unbiased * MOMENTUM)


@triton.jit
def numbers_before(segment, width, segments_of_row, segments, N: tl.constexpr, SEGMENT: tl.constexpr):
    """How many numbers of a plane stand before a segment."""
    until = tl.minimum(segment, segments)
    return (until // segments_of_row) * (width * N) + (until % segments_of_row) * SEGMENT


@triton.jit
def numbers_of(block, width, segments_of_row, segments, N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr):
    """How many numbers of a plane a block has."""
    end = numbers_before((block + 1) * SEGMENTS, width, segments_of_row, segments, N, SEGMENT)
    return end - numbers_before(block * SEGMENTS, width, segments_of_row, segments, N, SEGMENT)


@triton.jit
def measure(tile, inside, count):
    """Mean of a tile, and sum of squared deviations from it: no digits are lost where the mean is large."""
    mean = tl.sum(tl.where(inside, tile, 0.0)) / count
    deviation = tl.where(inside, tile - mean, 0.0)
    return mean, tl.sum(deviation * deviation)


@kernel
def convolve_kernel(
    x, x_scale, x_shift, x_stored,
    start, ends, taps, places, values,
    z, partial,
    weight, bias, running_mean, running_variance, mean, inverse_deviation, scale, shift,
    height, width, out_height, out_width, segments_of_row, segments, stride,
    N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, X_RECTIFY: tl.constexpr,
    TRAINING: tl.constexpr, WHOLE: tl.constexpr, MOMENTUM: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One block of one output channel. `WHOLE`: the block is the plane, and batch norm's vectors are written too."""
    block, channel = tl.program_id(0), tl.program_id(1)
    first, last = tl.load(start + channel), tl.load(start + channel + 1)
    if first < last:
        row, element, inside = tile_of(block, out_width, segments_of_row, segments, N, SEGMENT, SEGMENTS)
        sums = tl.zeros([SEGMENTS, SEGMENT], ACC)
        next_source, next_tap, _, next_value = entry_of(first, last, ends, taps, places, values)
        for index in range(first, last):
            source, tap, value = next_source, next_tap, next_value
            next_source, next_tap, _, next_value = entry_of(index + 1, last, ends, taps, places, values)
            offsets, within = shifted_forward(
                row, element, tap // KERNEL, tap % KERNEL, height, width, N, STRIDE, PADDING
            )
            within &= inside
            there = within & is_stored(x_stored, source)
            data = tl.load(x + plane_of(source, height, width, N) + offsets, mask=there, other=0.0).to(ACC)
            sums += value * tl.where(within, activate(data, x_scale, x_shift, source, X_RECTIFY), 0.0)
        rounded = sums.to(z.dtype.element_ty)
        own = row[:, None] * (out_width * N) + element
        tl.store(z + plane_of(channel, out_height, out_width, N) + own, rounded, mask=inside)
        if TRAINING:
            # Statistics of what is stored, because that will be normalised.
            count = numbers_of(block, out_width, segments_of_row, segments, N, SEGMENT, SEGMENTS).to(ACC)
            average, squares = measure(rounded.to(ACC), inside, count)
            if WHOLE:
                variance = squares / count
                update_running(channel, average, variance, count, running_mean, running_variance, MOMENTUM)
                write_affine(
                    channel, average, variance, weight, bias, mean, inverse_deviation, scale, shift, EPSILON
                )  # fmt: skip
            else:
                tl.store(partial + channel * stride + 2 * block, average)
                tl.store(partial + channel * stride + 2 * block + 1, squares)
    elif TRAINING and WHOLE:
        nothing = tl.zeros([], ACC)
        count = (out_height * out_width * N).to(ACC)
        update_running(channel, nothing, nothing, count, running_mean, running_variance, MOMENTUM)
        write_affine(channel, nothing, nothing, weight, bias, mean, inverse_deviation, scale, shift, EPSILON)


@kernel
def statistics_kernel(
    z, partial, height, width, segments_of_row, segments, stride,
    N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Mean and squared deviations of one block of one channel."""
    block, channel = tl.program_id(0), tl.program_id(1)
    row, element, inside = tile_of(block, width, segments_of_row, segments, N, SEGMENT, SEGMENTS)
    offsets = row[:, None] * (width * N) + element
    data = tl.load(z + plane_of(channel, height, width, N) + offsets, mask=inside, other=0.0).to(ACC)
    count = numbers_of(block, width, segments_of_row, segments, N, SEGMENT, SEGMENTS).to(ACC)
    average, squares = measure(data, inside, count)
    tl.store(partial + channel * stride + 2 * block, average)
    tl.store(partial + channel * stride + 2 * block + 1, squares)


@kernel
def finish_statistics_kernel(
    partial, stored, weight, bias, running_mean, running_variance, mean, inverse_deviation, scale, shift,
    height, width, segments_of_row, segments, blocks, stride,
    N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr,
    TRAINING: tl.constexpr, MOMENTUM: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Batch norm's vectors for one channel, from the statistics of its blocks or from running ones."""
    channel = tl.program_id(0)
    if TRAINING:
        count = (height * width * N).to(ACC)
        there = is_stored(stored, channel)
        sums = tl.zeros([CHUNK], ACC)
        for first in range(0, blocks, CHUNK):
            block = first + tl.arange(0, CHUNK)
            numbers = numbers_of(block, width, segments_of_row, segments, N, SEGMENT, SEGMENTS).to(ACC)
            exists = (block < blocks) & there
            averages = tl.load(partial + channel * stride + 2 * block, mask=exists, other=0.0)
            sums += averages * numbers
        average = tl.sum(sums, axis=0) / count
        sums = tl.zeros([CHUNK], ACC)
        for first in range(0, blocks, CHUNK):
            block = first + tl.arange(0, CHUNK)
            numbers = numbers_of(block, width, segments_of_row, segments, N, SEGMENT, SEGMENTS).to(ACC)
            exists = (block < blocks) & there
            averages = tl.load(partial + channel * stride + 2 * block, mask=exists, other=0.0)
            squares = tl.load(partial + channel * stride + 2 * block + 1, mask=exists, other=0.0)
            deviation = tl.where(exists, averages - average, 0.0)
            sums += squares + deviation * deviation * numbers
        variance = tl.sum(sums, axis=0) / count
        update_running(channel, average, variance, count, running_mean, running_variance, MOMENTUM)
    else:
        average = tl.load(running_mean + channel)
        variance = tl.load(running_variance + channel)
    write_affine(channel, average, variance, weight, bias, mean, inverse_deviation, scale, shift, EPSILON)


@kernel
def finish_block_kernel(
    x, x_scale, x_shift, x_stored, residual, residual_scale, residual_shift, residual_stored, y, plane,
    X_RECTIFY: tl.constexpr, RESIDUAL_RECTIFY: tl.constexpr, RECTIFY: tl.constexpr,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Source plus residual for one block of one channel."""
    channel = tl.program_id(1)
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < plane
    at = channel.to(tl.int64) * plane + offset
    data = tl.load(x + at, mask=inside & is_stored(x_stored, channel), other=0.0).to(ACC)
    sums = activate(data, x_scale, x_shift, channel, X_RECTIFY)
    if residual is not None:
        data = tl.load(residual + at, mask=inside & is_stored(residual_stored, channel), other=0.0).to(ACC)
        sums += activate(data, residual_scale, residual_shift, channel, RESIDUAL_RECTIFY)
    if RECTIFY:
        sums = tl.where(sums < 0, 0.0, sums)
    tl.store(y + at, sums.to(y.dtype.element_ty), mask=inside)
