"""How kernels cut a channel into parts: plain functions of the shapes, so that a captured graph stays right."""

import math
from dataclasses import dataclass

import torch

WARP = 32
"""Threads of a warp."""

VECTOR = 16
"""Bytes that a thread loads at once."""

TILE = 2048
"""Numbers of a block: two vectors of bf16, four of float32, for each thread of four warps."""

WHOLE = 8192
"""A plane of at most so many numbers is one block: its channel is then finished in one kernel."""

THREAD = 16
"""Numbers of a block for each thread."""

MOST_IMAGES = 128
"""Images of a block, where it is cut by images."""


@dataclass(frozen=True)
class Tiling:
    """How a plane (H, W, N) is cut.

    A row of W * N numbers is contiguous in memory. It is cut into segments, each of which is loaded by a warp at once
    and begins in the row at a multiple of its size. A block is a number of consecutive segments, the work of one
    program.

    Attributes:
        segment: numbers of a segment, a power of two.
        segments_of_row: segments of a row; the last one may reach beyond it.
        segments: segments of the plane.
        segments_of_block: segments of a block, a power of two.
        blocks: blocks of the plane; the last one may reach beyond it.
    """

    segment: int
    segments_of_row: int
    segments: int
    segments_of_block: int
    blocks: int

    @property
    def warps(self) -> int:
        """Warps of a program."""
        return warps_of(self.segment * self.segments_of_block)


@dataclass(frozen=True)
class PositionTiling:
    """How a plane (positions, N) is cut for what differs between images.

    Attributes:
        positions: of the plane.
        positions_of_block, images_of_block: the size of a block, both powers of two.
        rows: blocks one behind the other along positions.
        blocks: blocks of the plane: those of the first positions first.
    """

    positions: int
    positions_of_block: int
    images_of_block: int
    rows: int
    blocks: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "PositionTiling":
        """The cut of each channel of an activation (C, H, W, N)."""
        _, height, width, batch = shape
        images = min(power_of_two(batch), MOST_IMAGES)
        positions = min(TILE // images, power_of_two(height * width))
        rows = math.ceil(height * width / positions)
        return cls(height * width, positions, images, rows, rows * math.ceil(batch / images))

    @property
    def warps(self) -> int:
        """Warps of a program."""
        return warps_of(self.positions_of_block * self.images_of_block)


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums, factors, weights and statistics are kept for activations stored as `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def warps_of(numbers: int) -> int:
    """Warps of a program that works on so many numbers, a power of two."""
    return max(1, min(16, numbers // (WARP * THREAD)))


def tiling(shape: tuple[int, ...], dtype: torch.dtype) -> Tiling:
    """The cut of each channel of an activation (C, H, W, N)."""
    _, height, width, batch = shape
    row = width * batch
    segment = min(WARP * VECTOR // dtype.itemsize, power_of_two(row))
    segments_of_row = math.ceil(row / segment)
    segments = height * segments_of_row
    segments_of_block = power_of_two(segments)
    if segments_of_block * segment > WHOLE:
        segments_of_block = TILE // segment
    return Tiling(segment, segments_of_row, segments, segments_of_block, math.ceil(segments / segments_of_block))


def blocks_of(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Blocks of each channel of an activation (C, H, W, N)."""
    return tiling(shape, dtype).blocks


def parts_of(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Parts of a channel of an activation (C, H, W, N) for which the gradient of a non-zero is summed by itself."""
    cut = tiling(shape, dtype)
    return cut.blocks * cut.segments_of_block


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << (number - 1).bit_length()
