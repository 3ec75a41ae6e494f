"""The forward pass, kernel by kernel: sparse convolution, batch statistics, and outputs of blocks."""

from torch import Tensor

from east.engine.cuda import launch
from east.engine.cuda.kernels import forward as kernels
from east.engine.cuda.operands import Norm, Source
from east.engine.cuda.tiles import blocks_of
from east.engine.graph.index import Grouped
from east.models.description import Window

CHUNK = 128
"""Blocks whose statistics are combined at once."""


def convolve(
    source: Source, lists: Grouped, values: Tensor, window: Window, z: Tensor, norm: Norm, training: bool
) -> None:
    """Convolve the non-zeros, and find what the batch norm behind makes of the output.

    Args:
        source: the input (Ci, H, W, N).
        lists: the non-zeros by output channel.
        values: (at least capacity,) the weights in the order of places.
        window: of the convolution.
        z: (Co, Ho, Wo, N) the output; channels without non-zeros are not written, and count as 0.
        norm: `mean`, `inverse_deviation`, `scale` and `shift` are written; `partial` is used.
        training: whether statistics are those of the batch, and running ones are updated.
    """
    channels, out_height, out_width, _ = z.shape
    _, height, width, _ = source.data.shape
    blocks = blocks_of(z.shape, z.dtype)
    kernels.convolve_kernel[blocks, channels](
        **launch.read_as("x", source),
        **launch.walk(lists),
        **launch.shape_of(window),
        **launch.cut_of(z),
        **launch.forward_of(norm, training=training),
        values=values,
        z=z,
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        WHOLE=blocks == 1,
    )
    if not training or blocks > 1:
        _finish_statistics(z, lists.start, norm, training)


def normalise(z: Tensor, norm: Norm, training: bool) -> None:
    """Find what batch norm makes of a convolution's output that PyTorch wrote: what `convolve` does to `norm`.

    Args:
        z: (C, H, W, N), all of it written.
        norm: as in `convolve`.
        training: as in `convolve`.
    """
    if training:
        channels, height, width, _ = z.shape
        kernels.statistics_kernel[blocks_of(z.shape, z.dtype), channels](
            **launch.cut_of(z), z=z, partial=norm.partial, stride=norm.partial.stride(0), height=height, width=width
        )
    _finish_statistics(z, None, norm, training)


def finish_block(source: Source, residual: Source | None, y: Tensor, rectify: bool) -> None:
    """Add a residual to a source, and rectify the sum or not: the stored output of a block.

    Args:
        source: (C, H, W, N); `rectify` of its own applies before the sum.
        residual: likewise; None counts as 0.
        y: (C, H, W, N), all of it written; may be the memory of `residual.data` or of `source.data`.
        rectify: whether negative values become 0.
    """
    grid, arguments = launch.cut_anyhow(y)
    kernels.finish_block_kernel[grid](
        **launch.read_as("x", source), **launch.read_as("residual", residual), **arguments, y=y, RECTIFY=rectify
    )


def _finish_statistics(z: Tensor, stored: Tensor | None, norm: Norm, training: bool) -> None:
    channels, height, width, _ = z.shape
    kernels.finish_statistics_kernel[(channels,)](
        **launch.cut_of(z) | {"num_warps": 1},
        **launch.forward_of(norm, training=training),
        stored=stored,
        height=height,
        width=width,
        blocks=blocks_of(z.shape, z.dtype),
        CHUNK=CHUNK,
    )
