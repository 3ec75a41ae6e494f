"""Masked layers: ordinary layers with a mask beside the weight and exact zeros in the off weights."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedConv2d(nn.Conv2d):
    """A convolution without bias whose weight is kept exactly zero wherever `mask` is off.

    The weight is never multiplied by the mask, so its gradient stays dense, as growth needs it.
    """

    mask: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))

    def reuse(self, x: Tensor, scale: Tensor) -> Tensor:
        """Apply this layer's weight, times a scalar, elsewhere in the network (weight sharing)."""
        return F.conv2d(x, self.weight * scale, None, self.stride, self.padding)


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is kept exactly zero wherever `mask` is off."""

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))

    def reuse(self, x: Tensor, scale: Tensor) -> Tensor:
        """Apply this layer's weight, times a scalar, elsewhere in the network (weight sharing)."""
        return F.linear(x, self.weight * scale, self.bias)


MaskedLayer = MaskedConv2d | MaskedLinear


def masked_layers(model: nn.Module) -> dict[str, MaskedLayer]:
    """The masked layers of a network by name, in the order in which the network registers them."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, MaskedConv2d | MaskedLinear)}


def apply_masks(layers: Mapping[str, MaskedLayer]) -> None:
    """Set every off weight to exactly 0.0, after a change of the masks.

    Training touches only active weights, so nothing has to be masked again between changes.
    """
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.masked_fill_(~layer.mask, 0.0)
