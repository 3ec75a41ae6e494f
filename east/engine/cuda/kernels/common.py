"""What the kernels share: how they are compiled, the tile of a program, and where it reads."""

import triton
import triton.language as tl

SIZES = ["height", "width", "out_height", "out_width", "a_height", "a_width", "b_height", "b_width"]
SIZES += [
    "channels",
    "segments_of_row",
    "segments",
    "blocks",
    "stride",
    "parts",
    "a_size",
    "b_size",
    "positions",
    "numbers",
]
"""Sizes whose values need no kernel of their own."""

VECTORS = ["start", "ends", "taps", "places", "values", "stored", "partial", "value_gradient", "products"]
VECTORS += ["x_scale", "x_shift", "x_stored", "scale", "shift", "residual_scale", "residual_shift", "residual_stored"]
VECTORS += ["weight", "bias", "running_mean", "running_variance", "mean", "inverse_deviation"]
VECTORS += ["weight_gradient", "bias_gradient", "factors"]
VECTORS += [f"{reader}_{name}" for reader in "ab" for name in (*VECTORS[:5], "products", "value_gradient")]
"""Vectors whose alignment needs no kernel of its own."""

kernel = triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=VECTORS)
"""Makes a kernel of a function."""


@kernel
def add_one(numbers, sums, COUNT: tl.constexpr):
    """Add one to some numbers: shows whether kernels can be compiled and run here."""
    places = tl.arange(0, COUNT)
    tl.store(sums + places, tl.load(numbers + places) + 1)


@triton.jit
def tile_of(block, width, segments_of_row, segments, N: tl.constexpr, SEGMENT: tl.constexpr, SEGMENTS: tl.constexpr):
    """The numbers of a block of a plane (H, W, N), see `tiles.Tiling`.

    Returns:
        row (SEGMENTS,) in the plane, element (SEGMENTS, SEGMENT) in the row, and which of them exist.
    """
    segment = block * SEGMENTS + tl.arange(0, SEGMENTS)
    row = segment // segments_of_row
    first = (segment % segments_of_row) * SEGMENT
    element = first[:, None] + tl.arange(0, SEGMENT)[None, :]
    inside = (segment < segments)[:, None] & (element < width * N)
    return row, element, inside


@triton.jit
def plane_of(channel, height, width, N: tl.constexpr):
    """Where the plane of a channel begins: 64 bits, as an activation may have more numbers than 32 can count."""
    return channel.to(tl.int64) * (height * width * N)


@triton.jit
def is_stored(stored, channel):
    """Whether a channel was written: where its convolution's lists are given, whether it has non-zeros."""
    there = channel >= 0
    if stored is not None:
        there = tl.load(stored + channel) < tl.load(stored + channel + 1)
    return there


@triton.jit
def activate(data, scale, shift, channel, RECTIFY: tl.constexpr):
    """The activation that a channel's data stand for."""
    if scale is not None:
        data = data * tl.load(scale + channel) + tl.load(shift + channel)
    if RECTIFY:
        data = tl.where(data < 0, 0.0, data)
    return data


@triton.jit
def entry_of(index, last, ends, taps, places, values):
    """What a list says of a non-zero: the channel at the other end, tap, place and value; nothing from `last` on.

    A loop asks for the next entry before it reads planes, so that it does not wait for one after the other.
    """
    there = index < last
    place = tl.load(places + index, mask=there, other=0)
    end = tl.load(ends + index, mask=there, other=0)
    tap = tl.load(taps + index, mask=there, other=0)
    return end, tap, place, tl.load(values + place, mask=there, other=0.0)


@triton.jit
def shifted_forward(row, element, ky, kx, height, width, N: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr):
    """Where the tap in row ky and column kx reads for a tile of the output; height and width are those of the input.

    Returns:
        Offsets (SEGMENTS, SEGMENT) in a plane of the input, and which of them are in the image.
    """
    from_row = row * STRIDE + (ky - PADDING)
    from_element = element + (kx - PADDING) * N
    if STRIDE > 1:
        from_element += (element // N) * ((STRIDE - 1) * N)
    within = ((from_row >= 0) & (from_row < height))[:, None] & (from_element >= 0) & (from_element < width * N)
    return from_row[:, None] * (width * N) + from_element, within


@triton.jit
def shifted_backward(row, element, ky, kx, height, width, N: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr):
    """Where the tap in row ky and column kx brings a tile of the input; height and width are those of the output.

    Returns:
        Offsets (SEGMENTS, SEGMENT) in a plane of the output, and which of them it has brought anything to.
    """
    to_row = row + (PADDING - ky)
    to_element = element + (PADDING - kx) * N
    rows = to_row >= 0
    elements = to_element >= 0
    if STRIDE > 1:
        column = element // N + (PADDING - kx)
        rows &= to_row % STRIDE == 0
        elements &= column % STRIDE == 0
        to_row = to_row // STRIDE
        to_element = (column // STRIDE) * N + element % N
    within = (rows & (to_row < height))[:, None] & elements & (to_element < width * N)
    return to_row[:, None] * (width * N) + to_element, within
