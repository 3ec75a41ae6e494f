"""The backward pass, kernel by kernel: gradients at activations, of batch norm, of convolutions and of non-zeros."""

import math
from collections.abc import Sequence

from torch import Tensor

from east.engine.cuda import launch
from east.engine.cuda.kernels import backward as kernels
from east.engine.cuda.operands import Consumer, Norm, Output, Source
from east.engine.cuda.tiles import PositionTiling, blocks_of
from east.engine.graph.index import Grouped
from east.models.description import Window

FINISHED = 4
"""Non-zeros whose gradients a program finishes."""

CHUNK = 128
"""Parts that are added at once."""

ZEROS = 128
"""Places beyond the non-zeros that are cleared at once."""


def through_unit(
    output: Output,
    consumers: Sequence[Consumer],
    direct: Tensor | None,
    g: Tensor,
    dz: Tensor,
    *,
    keep: bool,
    everything: bool,
    training: bool,
) -> None:
    """The gradient at the output of a unit, gathered from what reads it, and taken back to its convolution.

    It writes the value gradients of the consumers, the gradients of the batch norm's parameters (of all channels), and:

    Args:
        output: the unit's output (C, H, W, N).
        consumers: up to 2 convolutions that read it; none where all gradient is in `direct`.
        direct: (C, H, W, N) gradient at the output from elsewhere, or None.
        g: (C, H, W, N) the gradient behind the activation function, which is also that at the residual; may be the
            memory of `direct`, and of nothing else.
        dz: (C, H, W, N) the gradient at the convolution's output; may be the memory of `output.z`, and of nothing
            else. Channels without non-zeros are not written unless `everything`.
        keep: whether `g` is wanted, for all channels; else it is memory for the time being.
        everything: whether `dz` is wanted for channels without non-zeros too.
        training: whether the statistics in the forward pass were those of the batch.
    """
    # Without consumers and activation g is what comes in, as for the convolution of a shortcut.
    unchanged = direct is not None and not consumers and not output.rectify
    incoming = direct if direct is not None and unchanged else g
    blocks = blocks_of(output.z.shape, output.z.dtype)
    if keep:
        store = direct is None or not unchanged or direct.data_ptr() != g.data_ptr()
    else:
        store = blocks > 1 and not unchanged
    kernels.gather_kernel[blocks, len(g)](
        **_gathering(output.z, consumers),
        **launch.backward_of(output.norm, training=training),
        y=output.y,
        z=output.z,
        stored=output.stored,
        mean=output.norm.mean,
        scale=output.norm.scale,
        shift=output.norm.shift,
        direct=direct,
        g_to=g,
        dz_to=dz,
        RECTIFY=output.rectify,
        STORE=store,
        KEEP=keep,
        EVERYTHING=everything,
    )
    if blocks > 1:
        _finish(output.z, output.norm, blocks, [one.parts for one in consumers], training)
        starts = [one.lists.start for one in consumers]
        _apply_gradient(output, starts, direct is not None, incoming, dz, everything)


def through_norm(output: Output, g: Tensor, dz: Tensor, *, everything: bool, training: bool) -> None:
    """Batch norm's backward pass where g is known and its sums are in `output.norm.partial`.

    This is the end of `through_unit`, for a unit with a DyReLU, behind `dyrelu.gradient_of_input`.

    Args:
        output: the unit's output before the DyReLU; `y` and `rectify` play no part.
        g: (C, H, W, N) the gradient at batch norm's output, all of it written.
        dz: as in `through_unit`.
        everything: as in `through_unit`.
        training: as in `through_unit`.
    """
    _finish(output.z, output.norm, PositionTiling.of(output.z.shape).blocks, (), training)
    _apply_gradient(output, [], True, g, dz, everything)


def gather(y: Tensor, consumers: Sequence[Consumer], direct: Tensor | None, g: Tensor) -> None:
    """The gradient at an activation that is stored, and nothing else: for outputs of DyReLUs and max-pools.

    It writes the value gradients of the consumers, and all of `g`.

    Args:
        y: (C, H, W, N) the activation.
        consumers: up to 2 convolutions that read it.
        direct: (C, H, W, N) gradient at it from elsewhere, or None.
        g: (C, H, W, N) the gradient at it; may be the memory of `direct`.
    """
    blocks = blocks_of(y.shape, y.dtype)
    nothing = dict.fromkeys(("z", "stored", "mean", "scale", "shift", "dz_to"))
    kernels.gather_kernel[blocks, len(y)](
        **_gathering(y, consumers),
        **launch.backward_of(None, training=False),
        **nothing,
        y=y,
        direct=direct,
        g_to=g,
        RECTIFY=False,
        STORE=True,
        KEEP=True,
        EVERYTHING=False,
    )
    if blocks > 1 and consumers:
        _finish(y, None, blocks, [one.parts for one in consumers], False)


def value_gradients(
    source: Source, lists: Grouped, window: Window, dz: Tensor, products: Tensor, value_gradient: Tensor
) -> None:
    """The gradients of the non-zeros of a convolution whose input needs none, such as the images.

    Args:
        source: the input (Ci, H, W, N).
        lists: the non-zeros by output channel.
        window: of the convolution.
        dz: (Co, Ho, Wo, N) the gradient at its output; channels without non-zeros are not read.
        products: (capacity, parts_of(shape of dz, dtype)) memory for parts of them.
        value_gradient: (at least capacity,) where they go, in the order of places; 0 beyond the non-zeros.
    """
    channels, out_height, out_width, _ = dz.shape
    _, height, width, _ = source.data.shape
    blocks = blocks_of(dz.shape, dz.dtype)
    kernels.value_products_kernel[blocks, channels](
        **launch.read_as("x", source),
        **launch.walk(lists),
        **launch.shape_of(window),
        **launch.cut_of(dz),
        dz=dz,
        products=products,
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        parts=launch.parts(dz),
    )
    _finish(dz, None, blocks, [(lists.start, products, value_gradient)], False)


def _gathering(plane: Tensor, consumers: Sequence[Consumer]) -> launch.Arguments:
    if len(consumers) > 2:
        raise ValueError(f"an activation has at most 2 readers here, not {len(consumers)}")
    a, b, *_ = *consumers, None, None
    channels, height, width, _ = plane.shape
    return {
        **launch.cut_of(plane),
        **launch.reader_of("a", a),
        **launch.reader_of("b", b),
        "height": height,
        "width": width,
        "channels": channels,
        "parts": launch.parts(plane),
        "WHOLE": blocks_of(plane.shape, plane.dtype) == 1,
        "ZEROS": ZEROS,
    }


def _finish(plane: Tensor, norm: Norm | None, blocks: int, products: Sequence[launch.Products], training: bool) -> None:
    """Sum up parts: batch norm's gradients and factors, and the gradients of non-zeros."""
    channels, height, width, batch = plane.shape
    a, b, *_ = *products, None, None
    programs = 0 if norm is None else channels
    programs += sum(math.ceil(len(gradient) / FINISHED) for _, _, gradient in products)
    kernels.finish_kernel[(programs,)](
        **launch.backward_of(norm, training=training),
        **launch.summed_up("a", a),
        **launch.summed_up("b", b),
        factors=None if norm is None else norm.factors,
        numbers=height * width * batch,
        channels=channels,
        blocks=blocks,
        parts=launch.parts(plane),
        ROWS=FINISHED,
        CHUNK=CHUNK,
        ACC=launch.accumulator(plane.dtype),
        num_warps=2,
    )


def _apply_gradient(
    output: Output, starts: Sequence[Tensor], direct: bool, g: Tensor, dz: Tensor, everything: bool
) -> None:
    grid, arguments = launch.cut_anyhow(dz)
    a_start, b_start, *_ = *starts, None, None
    kernels.apply_gradient_kernel[grid](
        **arguments,
        g=g,
        z=output.z,
        stored=output.stored,
        dz=dz,
        mean=output.norm.mean,
        factors=output.norm.factors,
        a_start=a_start,
        b_start=b_start,
        channels=len(dz),
        DIRECT=direct,
        EVERYTHING=everything,
    )
