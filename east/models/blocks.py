"""Residual blocks: one owns its convolutions, the other reuses those of another block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from east.models.dct import DCTConv2d, DCTLinear
from east.models.designs import BASIC, BOTTLENECK, Design
from east.models.dyrelu import DyReLU
from east.sparse.layers import MaskedConv2d, MaskedLinear

__all__ = ["BASIC", "BOTTLENECK", "Block", "Conv", "Design", "Parts", "SharingBlock", "apply_activation", "masked_part"]

Conv = MaskedConv2d | DCTConv2d


@dataclass(frozen=True)
class Parts:
    """The kinds of layer and activation that a network is made of."""

    dct: bool
    dyrelu: bool

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> Conv:
        """A convolution that keeps the size of the image, apart from its stride."""
        kind = DCTConv2d if self.dct else MaskedConv2d
        return kind(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)

    def linear(self, in_features: int, out_features: int) -> MaskedLinear | DCTLinear:
        """A classifier, without bias except in DCTpS networks."""
        return (DCTLinear if self.dct else MaskedLinear)(in_features, out_features)

    def activation(self, channels: int) -> DyReLU | None:
        """A DyReLU unit, or None for a plain ReLU."""
        return DyReLU(channels) if self.dyrelu else None


def apply_activation(unit: DyReLU | None, x: Tensor) -> Tensor:
    """Apply a unit from `Parts.activation`."""
    return F.relu(x) if unit is None else unit(x)


def masked_part(conv: Conv) -> MaskedConv2d:
    """The layer that holds a convolution's mask."""
    return conv.sparse if isinstance(conv, DCTConv2d) else conv


class Block(nn.Module):
    """A residual block that owns its convolutions `conv1`, `conv2`, ... and its shortcut.

    Each convolution is followed by batch norm (`bn1`, ...) and an activation (`act1`, ..., None for a plain ReLU). The
    shortcut is added before the last activation.
    """

    def __init__(self, design: Design, in_channels: int, width: int, stride: int, parts: Parts) -> None:
        super().__init__()
        channels = [in_channels, *(width * factor for factor in design.widths)]
        self.depth = len(design.kernels)
        for i, kernel in enumerate(design.kernels):
            conv_stride = stride if i == design.strided else 1
            self.add_module(f"conv{i + 1}", parts.conv(channels[i], channels[i + 1], kernel, conv_stride))
            _add_norm_and_activation(self, i + 1, channels[i + 1], parts)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or channels[0] != channels[-1]:
            self.shortcut = nn.Sequential(
                parts.conv(channels[0], channels[-1], 1, stride), nn.BatchNorm2d(channels[-1])
            )

    @property
    def convs(self) -> list[Conv]:
        """The convolutions in order, without the shortcut's."""
        return [getattr(self, f"conv{i + 1}") for i in range(self.depth)]

    @property
    def shortcut_conv(self) -> Conv | None:
        """The shortcut's convolution; None if the shortcut is the identity."""
        return None if self.shortcut is None else cast(Conv, self.shortcut[0])

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x (N, C, H, W)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return _residual(self, x, self.convs, shortcut)


class SharingBlock(nn.Module):
    """A residual block that reuses the convolutions of `source`, which is passed in and owned elsewhere.

    It owns its batch norms and activations, an identity shortcut, and one scalar per convolution (`scale1`, ...), drawn
    from U(0, 1), that multiplies the reused weight. With DCT layers it also owns `alpha1`, ...
    """

    def __init__(self, source: Block, parts: Parts) -> None:
        super().__init__()
        self.depth = source.depth
        for i, conv in enumerate(source.convs, start=1):
            self.register_parameter(f"scale{i}", nn.Parameter(torch.rand(())))
            if parts.dct:
                self.register_parameter(f"alpha{i}", nn.Parameter(torch.ones(())))
            _add_norm_and_activation(self, i, masked_part(conv).out_channels, parts)

    def forward(self, x: Tensor, source: Block) -> Tensor:
        """Apply the block to x (N, C, H, W) with the convolutions of `source`."""
        reused = [self._reuse(conv, i) for i, conv in enumerate(source.convs, start=1)]
        return _residual(self, x, reused, x)

    def _reuse(self, conv: Conv, i: int) -> Callable[[Tensor], Tensor]:
        scale: Tensor = getattr(self, f"scale{i}")
        if isinstance(conv, DCTConv2d):
            alpha: Tensor = getattr(self, f"alpha{i}")
            return lambda x: conv.reuse(x, scale, alpha)
        return lambda x: conv.reuse(x, scale)


def _add_norm_and_activation(block: nn.Module, i: int, channels: int, parts: Parts) -> None:
    block.add_module(f"bn{i}", nn.BatchNorm2d(channels))
    block.register_module(f"act{i}", parts.activation(channels))


def _residual(block: nn.Module, x: Tensor, convs: Sequence[Callable[[Tensor], Tensor]], shortcut: Tensor) -> Tensor:
    for i, conv in enumerate(convs, start=1):
        x = getattr(block, f"bn{i}")(conv(x))
        if i == len(convs):
            x = x + shortcut
        x = apply_activation(getattr(block, f"act{i}"), x)
    return x
