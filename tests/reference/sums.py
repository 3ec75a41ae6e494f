"""Groups of images, and the sums that run over them.

An activation is an array (channels, groups, H, W, 32).
"""

import numpy as np
from numpy.typing import NDArray

from tests.reference.rounding import Array, fma, fma_double

LANES = 32
SEGMENT = 64
"""Positions of a segment, where whole rows make it up."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def into_groups(images: Floats) -> Floats:
    """(N, C, H, W) or (N, C) as (C, groups, H, W, 32); lanes without an image hold zeros."""
    count, channels, height, width = images.reshape(*images.shape, *(1,) * (4 - images.ndim)).shape
    groups = -(-count // LANES)
    padded = np.zeros((groups * LANES, channels, height, width), np.float32)
    padded[:count] = images.reshape(count, channels, height, width)
    return np.ascontiguousarray(padded.reshape(groups, LANES, channels, height, width).transpose(2, 0, 3, 4, 1))


def by_image(values: Floats, count: int) -> Floats:
    """(C, groups, 1, 1, 32) as (N, C)."""
    return values.reshape(len(values), -1)[:, :count].T.copy()


def has_image(groups: int, count: int) -> NDArray[np.bool_]:
    """(groups, 32) whether there is an image in a lane."""
    return np.arange(groups * LANES).reshape(groups, LANES) < count


def halving_tree(numbers: Array) -> Array:
    """The sum over the last axis, of 32 numbers."""
    sums, half = numbers, LANES // 2
    while half:
        sums = sums[..., :half] + sums[..., half : 2 * half]
        half //= 2
    return sums[..., 0]


def in_order(numbers: Array) -> Doubles:
    """The sum over the last axis, one after another in double, starting at 0."""
    total = np.zeros(numbers.shape[:-1])
    for number in np.moveaxis(numbers, -1, 0):
        total = total + number.astype(np.float64)
    return total


def segments(height: int, width: int) -> list[slice]:
    """The rows of each segment of a plane."""
    rows = max(1, SEGMENT // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def lane_sums(a: Floats, b: Floats | None = None, inside: NDArray[np.bool_] | None = None) -> Floats:
    """Σ a, or Σ a·b, in every lane of each segment.

    Args:
        a: (..., groups, H, W, 32).
        b: likewise.
        inside: (H, W) which positions enter; None for all.

    Returns:
        (..., groups, segments, 32).
    """
    height, width = a.shape[-3:-1]
    of_segments = []
    for rows in segments(height, width):
        total = np.zeros((), np.float32)
        for row in range(rows.start, rows.stop):
            for column in range(width):
                if inside is None or inside[row, column]:
                    at = np.s_[..., row, column, :]
                    total = total + a[at] if b is None else fma(a[at], b[at], total)
        shape = np.broadcast_shapes(a.shape, () if b is None else b.shape)
        of_segments.append(np.broadcast_to(total, shape[:-3] + shape[-1:]))
    return np.stack(of_segments, axis=-2)


def plane_sum(count: int, a: Floats, b: Floats | None = None, inside: NDArray[np.bool_] | None = None) -> Doubles:
    """Σ a, or Σ a·b, over the planes of `count` images: (...); see `lane_sums`."""
    lanes = lane_sums(a, b, inside)
    there = has_image(lanes.shape[-3], count)[:, None]
    totals = halving_tree(np.where(there, lanes, np.float32(0)))
    return in_order(totals.reshape(*totals.shape[:-2], totals.shape[-2] * totals.shape[-1]))


def plane_means(count: int, a: Floats) -> Floats:
    """The mean of every image over positions: (C, groups, 1, 1, 32), 0 in lanes without an image."""
    groups, height, width = a.shape[1:4]
    means = (in_order(np.moveaxis(lane_sums(a), -2, -1)) / (height * width)).astype(np.float32)
    return np.where(has_image(groups, count), means, np.float32(0))[:, :, None, None]


def dot(a: Array, b: Array) -> float:
    """Σ a·b of two vectors in double, over 32 lanes."""
    a, b = (np.pad(vector.astype(np.float64).ravel(), (0, -vector.size % LANES)) for vector in (a, b))
    lanes = np.zeros(LANES)
    for start in range(0, len(a), LANES):
        lanes = fma_double(a[start : start + LANES], b[start : start + LANES], lanes)
    return float(halving_tree(lanes))
