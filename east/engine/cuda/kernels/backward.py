"""Triton kernels of the backward pass."""

import triton
import triton.language as tl

from east.engine.cuda.kernels.common import (
    activate,
    entry_of,
    is_stored,
    kernel,
    plane_of,
    shifted_backward,
    shifted_forward,
    tile_of,
)


@triton.jit
def gather_from(
    g, value, live, row, element, channel, channels, block,
    start, ends, taps, places, values, dz, products, value_gradient, height, width, size, parts,
    N: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    SEGMENTS: tl.constexpr, WHOLE: tl.constexpr, ACC: tl.constexpr, ZEROS: tl.constexpr,
):  # fmt: skip
    """Add to g what reaches an activation through one of its readers, and find the gradients of the reader's non-zeros.

    `value` is the tile of the activation, `live` says which of its numbers anything may come of. `size` is that of
    `value_gradient`, which is written if the block is the plane (`WHOLE`); else sums over segments go to `products`.
    """
    first, last = tl.load(start + channel), tl.load(start + channel + 1)
    next_end, next_tap, next_place, next_weight = entry_of(first, last, ends, taps, places, values)
    for index in range(first, last):
        end, tap, place, weight = next_end, next_tap, next_place, next_weight
        next_end, next_tap, next_place, next_weight = entry_of(index + 1, last, ends, taps, places, values)
        offsets, within = shifted_backward(row, element, tap // KERNEL, tap % KERNEL, height, width, N, STRIDE, PADDING)
        d = tl.load(dz + plane_of(end, height, width, N) + offsets, mask=within & live, other=0.0).to(ACC)
        g += weight * d
        sums = tl.sum(value * d, axis=1)
        if WHOLE:
            tl.store(value_gradient + place, tl.sum(sums, axis=0))
        else:
            part = block * SEGMENTS + tl.arange(0, SEGMENTS)
            tl.store(products + place.to(tl.int64) * parts + part, sums)
    if WHOLE:
        # What is beyond the non-zeros is 0; the programs of all channels share the work.
        for first in range(tl.load(start + channels) + channel * ZEROS, size, channels * ZEROS):
            beyond = first + tl.arange(0, ZEROS)
            tl.store(value_gradient + beyond, tl.zeros([ZEROS], ACC), mask=beyond < size)
    return g


@triton.jit
def has_readers(channel, a_start, b_start, DIRECT: tl.constexpr):
    """Whether any gradient reaches a channel of an activation."""
    there = channel >= 0
    if not DIRECT:
        there = channel < 0
        if a_start is not None:
            there |= tl.load(a_start + channel) < tl.load(a_start + channel + 1)
        if b_start is not None:
            there |= tl.load(b_start + channel) < tl.load(b_start + channel + 1)
    return there


@triton.jit
def finish_channel(
    channel, sum_g, sum_product, count, weight, inverse_deviation, weight_gradient, bias_gradient,
    TRAINING: tl.constexpr,
):  # fmt: skip
    """Gradients of batch norm's parameters, and the factors of its backward pass, see `Norm.factors`."""
    inverse = tl.load(inverse_deviation + channel)
    scale = tl.load(weight + channel) * inverse
    tl.store(weight_gradient + channel, sum_product)
    tl.store(bias_gradient + channel, sum_g)
    of_deviation = scale * 0.0
    shared = scale * 0.0
    if TRAINING:
        of_deviation = -scale * inverse * (sum_product / count)
        shared = -scale * (sum_g / count)
    return scale, of_deviation, shared


@kernel
def gather_kernel(
    y, z, stored, direct, g_to, dz_to, partial,
    weight, mean, inverse_deviation, scale, shift, weight_gradient, bias_gradient,
    a_start, a_ends, a_taps, a_places, a_values, a_dz, a_products, a_value_gradient, a_height, a_width, a_size,
    b_start, b_ends, b_taps, b_places, b_values, b_dz, b_products, b_value_gradient, b_height, b_width, b_size,
    height, width, segments_of_row, segments, channels, parts, stride,
    N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr,
    A_KERNEL: tl.constexpr, A_STRIDE: tl.constexpr, A_PADDING: tl.constexpr,
    B_KERNEL: tl.constexpr, B_STRIDE: tl.constexpr, B_PADDING: tl.constexpr,
    RECTIFY: tl.constexpr, STORE: tl.constexpr, KEEP: tl.constexpr, EVERYTHING: tl.constexpr,
    TRAINING: tl.constexpr, WHOLE: tl.constexpr, ACC: tl.constexpr, ZEROS: tl.constexpr,
):  # fmt: skip
    """One block of one channel of the gradient at an activation.

    The activation is y, or where there is none that of z. Without z there is no batch norm. `STORE`: g is written, for
    all channels (`KEEP`) or those whose dz is wanted. `WHOLE`: the block is the plane, and what follows is done too.
    """
    block, channel = tl.program_id(0), tl.program_id(1)
    row, element, inside = tile_of(block, width, segments_of_row, segments, N, SEGMENT, SEGMENTS)
    at = plane_of(channel, height, width, N) + (row[:, None] * (width * N) + element)
    read = inside & has_readers(channel, a_start, b_start, direct is not None)
    wanted = is_stored(stored, channel)
    if z is not None:
        data = tl.load(z + at, mask=read & wanted, other=0.0).to(ACC)
    if y is not None:
        value = tl.load(y + at, mask=read, other=0.0).to(ACC)
        live = read
    else:
        value = activate(data, scale, shift, channel, RECTIFY)
        live = read
        if RECTIFY:
            # A channel without non-zeros is constant: where it is 0, nothing comes of any gradient.
            live &= wanted | (tl.load(shift + channel) > 0)
    g = tl.zeros([SEGMENTS, SEGMENT], ACC)
    if direct is not None:
        g = tl.load(direct + at, mask=live, other=0.0).to(ACC)
    if a_start is not None:
        g = gather_from(
            g, value, live, row, element, channel, channels, block, a_start, a_ends, a_taps, a_places, a_values, a_dz,
            a_products, a_value_gradient, a_height, a_width, a_size, parts,
            N, A_KERNEL, A_STRIDE, A_PADDING, SEGMENTS, WHOLE, ACC, ZEROS,
        )  # fmt: skip
    if b_start is not None:
        g = gather_from(
            g, value, live, row, element, channel, channels, block, b_start, b_ends, b_taps, b_places, b_values, b_dz,
            b_products, b_value_gradient, b_height, b_width, b_size, parts,
            N, B_KERNEL, B_STRIDE, B_PADDING, SEGMENTS, WHOLE, ACC, ZEROS,
        )  # fmt: skip
    if RECTIFY:
        g = tl.where(value <= 0, 0.0, g)
    if STORE:
        if KEEP:
            tl.store(g_to + at, g.to(g_to.dtype.element_ty), mask=inside)
        else:
            tl.store(g_to + at, g.to(g_to.dtype.element_ty), mask=read & (wanted | EVERYTHING))
    if z is not None:
        deviation = data - tl.load(mean + channel)
        sum_g = tl.sum(g)
        sum_product = tl.sum(g * deviation) * tl.load(inverse_deviation + channel)
        if WHOLE:
            count = (height * width * N).to(ACC)
            factor, of_deviation, shared = finish_channel(
                channel, sum_g, sum_product, count, weight, inverse_deviation, weight_gradient, bias_gradient, TRAINING
            )
            dz = factor * g + of_deviation * deviation + shared
            tl.store(dz_to + at, dz.to(dz_to.dtype.element_ty), mask=inside & (wanted | EVERYTHING))
        else:
            tl.store(partial + channel * stride + 2 * block, sum_g)
            tl.store(partial + channel * stride + 2 * block + 1, sum_product)


@triton.jit
def finish_values(
    rows,
    start,
    groups,
    products,
    value_gradient,
    size,
    parts,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradients of some non-zeros from their parts, and 0 for places beyond the non-zeros."""
    place = rows * ROWS + tl.arange(0, ROWS)
    exists = place < tl.load(start + groups)
    sums = tl.zeros([ROWS, CHUNK], ACC)
    for first in range(0, parts, CHUNK):
        part = first + tl.arange(0, CHUNK)
        at = place.to(tl.int64)[:, None] * parts + part[None, :]
        sums += tl.load(products + at, mask=exists[:, None] & (part < parts)[None, :], other=0.0)
    tl.store(value_gradient + place, tl.sum(sums, axis=1), mask=place < size)


@kernel
def finish_kernel(
    partial, weight, inverse_deviation, weight_gradient, bias_gradient, factors,
    a_start, a_products, a_value_gradient, a_size, b_start, b_products, b_value_gradient, b_size,
    numbers, channels, blocks, parts, stride,
    TRAINING: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """What one sum over all blocks gives: a program for each channel of the batch norm, then for rows of non-zeros."""
    program = tl.program_id(0)
    if partial is not None:
        if program < channels:
            sums = tl.zeros([CHUNK], ACC)
            products = tl.zeros([CHUNK], ACC)
            for first in range(0, blocks, CHUNK):
                block = first + tl.arange(0, CHUNK)
                at = partial + program * stride + 2 * block
                sums += tl.load(at, mask=block < blocks, other=0.0)
                products += tl.load(at + 1, mask=block < blocks, other=0.0)
            factor, of_deviation, shared = finish_channel(
                program, tl.sum(sums, axis=0), tl.sum(products, axis=0), numbers.to(ACC), weight, inverse_deviation,
                weight_gradient, bias_gradient, TRAINING,
            )  # fmt: skip
            tl.store(factors + program, factor)
            tl.store(factors + channels + program, of_deviation)
            tl.store(factors + 2 * channels + program, shared)
        program -= channels
    if a_start is not None:
        programs = tl.cdiv(a_size, ROWS)
        if (program >= 0) & (program < programs):
            finish_values(program, a_start, channels, a_products, a_value_gradient, a_size, parts, ROWS, CHUNK, ACC)
        program -= programs
    if b_start is not None:
        programs = tl.cdiv(b_size, ROWS)
        if (program >= 0) & (program < programs):
            finish_values(program, b_start, channels, b_products, b_value_gradient, b_size, parts, ROWS, CHUNK, ACC)


@kernel
def apply_gradient_kernel(
    g, z, stored, dz, mean, factors, a_start, b_start, channels, plane,
    DIRECT: tl.constexpr, EVERYTHING: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one channel of the gradient at a convolution."""
    channel = tl.program_id(1)
    wanted = is_stored(stored, channel)
    if wanted | EVERYTHING:
        offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = offset < plane
        at = channel.to(tl.int64) * plane + offset
        # Where no gradient comes from, both sums are 0, and g is not there.
        read = inside & has_readers(channel, a_start, b_start, DIRECT)
        data = tl.load(z + at, mask=read & wanted, other=0.0).to(ACC)
        deviation = data - tl.load(mean + channel)
        incoming = tl.load(g + at, mask=read, other=0.0).to(ACC)
        result = tl.load(factors + channel) * incoming
        result += tl.load(factors + channels + channel) * deviation + tl.load(factors + 2 * channels + channel)
        tl.store(dz + at, result.to(dz.dtype.element_ty), mask=inside)


@kernel
def value_products_kernel(
    x, x_scale, x_shift, x_stored, start, ends, taps, places, dz, products,
    height, width, out_height, out_width, segments_of_row, segments, parts,
    N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, X_RECTIFY: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Parts of the gradients of the non-zeros of one output channel: those of one block."""
    block, channel = tl.program_id(0), tl.program_id(1)
    first, last = tl.load(start + channel), tl.load(start + channel + 1)
    if first < last:
        row, element, inside = tile_of(block, out_width, segments_of_row, segments, N, SEGMENT, SEGMENTS)
        own = row[:, None] * (out_width * N) + element
        d = tl.load(dz + plane_of(channel, out_height, out_width, N) + own, mask=inside, other=0.0).to(ACC)
        part = block * SEGMENTS + tl.arange(0, SEGMENTS)
        for index in range(first, last):
            source, tap, place = tl.load(ends + index), tl.load(taps + index), tl.load(places + index)
            offsets, within = shifted_forward(
                row, element, tap // KERNEL, tap % KERNEL, height, width, N, STRIDE, PADDING
            )
            within &= inside
            there = within & is_stored(x_stored, source)
            data = tl.load(x + plane_of(source, height, width, N) + offsets, mask=there, other=0.0).to(ACC)
            value = tl.where(within, activate(data, x_scale, x_shift, source, X_RECTIFY), 0.0)
            tl.store(products + place.to(tl.int64) * parts + part, tl.sum(value * d, axis=1))
