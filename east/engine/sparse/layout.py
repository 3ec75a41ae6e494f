"""Images between PyTorch's layouts and that of the kernels, (C, H, W, N)."""

from torch import Tensor

from east.engine.sparse import kernels as k


def to_batch_innermost(kernels: k.KernelSet, images: Tensor, to: Tensor) -> None:
    """Copy images (N, C, H, W), contiguous or channels-last, into `to` (C, H, W, N)."""
    batch, channels, height, width = images.shape
    kernels(
        "to_batch_innermost",
        k.ToBatchInnermost(
            k.address(images), k.address(to), batch, channels, height * width, *_strides(images, height, width)
        ),
    )


def from_batch_innermost(kernels: k.KernelSet, data: Tensor, planes: k.Planes | None = None) -> Tensor:
    """An activation (C, H, W, N) as images (N, C, H, W), channels-last.

    Args:
        kernels: the compiled kernels.
        data: the activation's memory.
        planes: how each channel is kept; all are stored if None.
    """
    channels, height, width, batch = data.shape
    images = data.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    kernels(
        "from_batch_innermost",
        k.FromBatchInnermost(
            planes or k.Planes(k.address(data)),
            k.address(images),
            batch,
            channels,
            height * width,
            *_strides(images, height, width),
        ),
    )
    return images


def _strides(images: Tensor, height: int, width: int) -> tuple[int, int, int]:
    """The strides of image, channel and position; rows of positions lie side by side."""
    image, channel, row, column = images.stride()
    if height > 1 and width > 1 and row != width * column:
        raise ValueError("images must be contiguous or channels-last")
    return image, channel, column if width > 1 else row
