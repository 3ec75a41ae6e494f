"""The memory format and precision in which PyTorch's own convolutions are executed."""

import torch
from torch import Tensor, nn

NARROW = 16
"""Input channels below which a strided 1x1 convolution must not run in channels-last on a CPU."""


def convolution_format(conv: nn.Conv2d, device: torch.device) -> torch.memory_format:
    """Channels-last, in which convolutions run fastest, but for those that PyTorch gets wrong in it.

    On CPUs the backward pass of a strided 1x1 convolution with fewer input channels than a vector has lanes writes
    beyond its memory in PyTorch 2.13 (oneDNN issue 6035): the process crashes, now and then.
    """
    narrow = conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.in_channels < NARROW
    return torch.contiguous_format if narrow and device.type == "cpu" else torch.channels_last


def as_convolved(images: Tensor, conv: nn.Conv2d) -> Tensor:
    """Images (N, C, H, W), or a gradient at the output, in the memory format of a convolution; a copy if need be."""
    return in_format(images, convolution_format(conv, images.device))


def in_format(images: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Images (N, C, H, W) that PyTorch takes to be in a memory format; a copy if need be."""
    images = images.contiguous(memory_format=memory_format)
    # A single channel is contiguous with any stride, and PyTorch would take that of channels-last for its format.
    return images.flatten().view(images.shape) if memory_format == torch.contiguous_format else images


def network_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels-last, unless one convolution of the network must not run in it."""
    formats = {convolution_format(module, device) for module in model.modules() if isinstance(module, nn.Conv2d)}
    return torch.contiguous_format if torch.contiguous_format in formats else torch.channels_last


def set_convolution_precision(numerics: str, device: torch.device) -> None:
    """Have convolutions in float32 use the matrix units' TF32 on CUDA, unless numerics are `fp32`."""
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee" if numerics == "fp32" else "tf32"  # type: ignore[attr-defined]
