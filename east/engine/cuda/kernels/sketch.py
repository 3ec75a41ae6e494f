"""Triton kernels of the sketch: few maps made of many, and their products with an activation."""

import triton.language as tl

from east.engine.cuda.kernels.common import kernel


@kernel
def combine_kernel(
    dz, signs, maps,
    channels, probes, plane,
    PROBES: tl.constexpr, CHANNELS: tl.constexpr, NUMBERS: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over all channels with each probe's signs, for NUMBERS of their plane."""
    offset = tl.program_id(0) * NUMBERS + tl.arange(0, NUMBERS)
    inside = offset < plane
    probe = tl.arange(0, PROBES)
    sums = tl.zeros([PROBES, NUMBERS], ACC)
    for first in range(0, channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        exists = channel < channels
        at = dz + channel.to(tl.int64)[:, None] * plane + offset[None, :]
        data = tl.load(at, mask=exists[:, None] & inside[None, :], other=0.0).to(ACC)
        known = (probe < probes)[:, None] & exists[None, :]
        sign = tl.load(signs + probe[:, None] * channels + channel[None, :], mask=known, other=0.0).to(ACC)
        sums = tl.dot(sign, data, sums, input_precision=PRECISION, out_dtype=ACC)
    to = maps + probe.to(tl.int64)[:, None] * plane + offset[None, :]
    tl.store(to, sums, mask=(probe < probes)[:, None] & inside[None, :])


@kernel
def correlate_kernel(
    x, x_scale, x_shift, x_stored, maps, products,
    channels, width, out_height, out_width, plane, columns, steps,
    N: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    X_RECTIFY: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """The products of a group of channels with all columns (map and tap), over `steps` times NUMBERS of their plane."""
    part, group = tl.program_id(0), tl.program_id(1)
    channel = group * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    stored = exists
    if x_stored is not None:
        first = tl.load(x_stored + channel, mask=exists, other=0)
        stored = first < tl.load(x_stored + channel + 1, mask=exists, other=0)
    if x_scale is not None:
        scale = tl.load(x_scale + channel, mask=exists, other=0.0)[:, None]
        shift = tl.load(x_shift + channel, mask=exists, other=0.0)[:, None]
    column = tl.arange(0, COLUMNS)
    number, tap = column // (KERNEL * KERNEL), column % (KERNEL * KERNEL)
    down, right = PADDING - tap // KERNEL, PADDING - tap % KERNEL
    from_map = maps + number.to(tl.int64) * (out_height * out_width * N)
    from_channel = x + channel.to(tl.int64) * plane
    sums = tl.zeros([CHANNELS, COLUMNS], ACC)
    for step in range(steps):
        offset = (part * steps + step) * NUMBERS + tl.arange(0, NUMBERS)
        inside = offset < plane
        read = stored[:, None] & inside[None, :]
        data = tl.load(from_channel[:, None] + offset[None, :], mask=read, other=0.0).to(ACC)
        if x_scale is not None:
            data = data * scale + shift
        if X_RECTIFY:
            data = tl.where(data < 0, 0.0, data)
        # As in `shifted_backward`: where a tap has brought the numbers to.
        row = (offset // (width * N))[None, :] + down[:, None]
        along = (offset % (width * N))[None, :]
        moved = along + right[:, None] * N
        there = (row >= 0) & (moved >= 0) & inside[None, :] & (column < columns)[:, None]
        if STRIDE > 1:
            to = moved // N
            there &= (row % STRIDE == 0) & (to % STRIDE == 0)
            row = row // STRIDE
            moved = (to // STRIDE) * N + along % N
        there &= (row < out_height) & (moved < out_width * N)
        seen = tl.load(from_map[:, None] + row * (out_width * N) + moved, mask=there, other=0.0).to(ACC)
        sums = tl.dot(data, tl.trans(seen), sums, input_precision=PRECISION, out_dtype=ACC)
    to = (part * channels + channel)[:, None] * columns + column[None, :]
    tl.store(products + to, sums, mask=exists[:, None] & (column < columns)[None, :])
