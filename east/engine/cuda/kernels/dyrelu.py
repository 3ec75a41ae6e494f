"""Triton kernels of DyReLU, whose tiles are (positions, images): its coefficients differ between images."""

import triton
import triton.language as tl

from east.engine.cuda.kernels.common import activate, is_stored, kernel


@triton.jit
def tile_by_images(block, positions, N: tl.constexpr, POSITIONS: tl.constexpr, IMAGES: tl.constexpr):
    """The numbers of a block of a plane (positions, N).

    Returns:
        image (1, IMAGES), offset (POSITIONS, IMAGES) in the plane, and which of them exist.
    """
    position = (block // tl.cdiv(N, IMAGES)) * POSITIONS + tl.arange(0, POSITIONS)[:, None]
    image = (block % tl.cdiv(N, IMAGES)) * IMAGES + tl.arange(0, IMAGES)[None, :]
    return image, position * N + image, (position < positions) & (image < N)


@triton.jit
def slope_of(line, coefficients, channel, image, N: tl.constexpr):
    """The slopes of line 0 or 1 for the images of a tile."""
    return tl.load(coefficients + (channel * 4 + line) * N + image, mask=image < N, other=0.0)


@triton.jit
def line_of(line, coefficients, u, channel, image, N: tl.constexpr):
    """The values of line 0 or 1 at u."""
    intercept = tl.load(coefficients + (channel * 4 + 2 + line) * N + image, mask=image < N, other=0.0)
    return slope_of(line, coefficients, channel, image, N) * u + intercept


@triton.jit
def share_of_first(coefficients, u, channel, image, N: tl.constexpr):
    """The share of the gradient that goes to line 0: where both lines are equal PyTorch gives each half of it."""
    first = line_of(0, coefficients, u, channel, image, N)
    second = line_of(1, coefficients, u, channel, image, N)
    return tl.where(first > second, 1.0, tl.where(first < second, 0.0, 0.5)).to(u.dtype)


@kernel
def finish_input_kernel(
    x, x_scale, x_shift, x_stored, residual, residual_scale, residual_shift, residual_stored, u, partial, positions,
    N: tl.constexpr, POSITIONS: tl.constexpr, IMAGES: tl.constexpr,
    X_RECTIFY: tl.constexpr, RESIDUAL_RECTIFY: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Source plus residual for one block of one channel, and the sums of each image."""
    block, channel = tl.program_id(0), tl.program_id(1)
    image, offset, inside = tile_by_images(block, positions, N, POSITIONS, IMAGES)
    at = channel.to(tl.int64) * (positions * N) + offset
    data = tl.load(x + at, mask=inside & is_stored(x_stored, channel), other=0.0).to(ACC)
    sums = activate(data, x_scale, x_shift, channel, X_RECTIFY)
    if residual is not None:
        data = tl.load(residual + at, mask=inside & is_stored(residual_stored, channel), other=0.0).to(ACC)
        sums += activate(data, residual_scale, residual_shift, channel, RESIDUAL_RECTIFY)
    rounded = sums.to(u.dtype.element_ty)
    tl.store(u + at, rounded, mask=inside)
    rows = tl.cdiv(positions, POSITIONS)
    row = channel * rows + block // tl.cdiv(N, IMAGES)
    sums = tl.sum(tl.where(inside, rounded.to(ACC), 0.0), axis=0)[None, :]
    tl.store(partial + row * N + image, sums, mask=image < N)


@kernel
def apply_kernel(
    u, coefficients, y, positions,
    N: tl.constexpr, POSITIONS: tl.constexpr, IMAGES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The larger line for one block of one channel."""
    block, channel = tl.program_id(0), tl.program_id(1)
    image, offset, inside = tile_by_images(block, positions, N, POSITIONS, IMAGES)
    at = channel.to(tl.int64) * (positions * N) + offset
    data = tl.load(u + at, mask=inside, other=0.0).to(ACC)
    first = line_of(0, coefficients, data, channel, image, N)
    second = line_of(1, coefficients, data, channel, image, N)
    larger = tl.where(second > first, second, first)
    tl.store(y + at, larger.to(y.dtype.element_ty), mask=inside)


@kernel
def gradient_of_coefficients_kernel(
    u, coefficients, dy, partial, positions,
    N: tl.constexpr, POSITIONS: tl.constexpr, IMAGES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Sums of each image over one block of one channel, for each of the four coefficients."""
    block, channel = tl.program_id(0), tl.program_id(1)
    image, offset, inside = tile_by_images(block, positions, N, POSITIONS, IMAGES)
    at = channel.to(tl.int64) * (positions * N) + offset
    data = tl.load(u + at, mask=inside, other=0.0).to(ACC)
    incoming = tl.load(dy + at, mask=inside, other=0.0).to(ACC)
    share = share_of_first(coefficients, data, channel, image, N)
    row = channel * tl.cdiv(positions, POSITIONS) + block // tl.cdiv(N, IMAGES)
    to = partial + row * (4 * N) + image
    of_first, of_second = incoming * share, incoming * (1 - share)
    exists = image < N
    tl.store(to, tl.sum(of_first * data, axis=0)[None, :], mask=exists)
    tl.store(to + N, tl.sum(of_second * data, axis=0)[None, :], mask=exists)
    tl.store(to + 2 * N, tl.sum(of_first, axis=0)[None, :], mask=exists)
    tl.store(to + 3 * N, tl.sum(of_second, axis=0)[None, :], mask=exists)


@kernel
def gradient_of_input_kernel(
    u, coefficients, dy, at_means, z, stored, mean, inverse_deviation, g, partial, positions, stride,
    N: tl.constexpr, POSITIONS: tl.constexpr, IMAGES: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The gradient at the input for one block of one channel, and batch norm's sums of it."""
    block, channel = tl.program_id(0), tl.program_id(1)
    image, offset, inside = tile_by_images(block, positions, N, POSITIONS, IMAGES)
    at = channel.to(tl.int64) * (positions * N) + offset
    data = tl.load(u + at, mask=inside, other=0.0).to(ACC)
    incoming = tl.load(dy + at, mask=inside, other=0.0).to(ACC)
    share = share_of_first(coefficients, data, channel, image, N)
    slope_1 = slope_of(0, coefficients, channel, image, N)
    slope_2 = slope_of(1, coefficients, channel, image, N)
    everywhere = tl.load(at_means + channel * N + image, mask=image < N, other=0.0)
    result = tl.where(inside, incoming * (share * slope_1 + (1 - share) * slope_2) + everywhere, 0.0)
    tl.store(g + at, result.to(g.dtype.element_ty), mask=inside)
    normalised = tl.load(z + at, mask=inside & is_stored(stored, channel), other=0.0).to(ACC) - tl.load(mean + channel)
    tl.store(partial + channel * stride + 2 * block, tl.sum(result))
    sum_product = tl.sum(result * normalised) * tl.load(inverse_deviation + channel)
    tl.store(partial + channel * stride + 2 * block + 1, sum_product)
