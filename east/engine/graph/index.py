"""Where the non-zeros of a layer are, in the two orders in which kernels walk over them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from east.sparse.active import ActiveWeights


class IdentityWeights:
    """What the identity multiplies each channel with, in the form of a layer's active weights: ones that stay.

    Args:
        channels: of its input; an output may have more, which are zero.
        out_channels: of its output.
        like: of the type and on the device of which the ones are.
    """

    def __init__(self, channels: int, out_channels: int, like: Tensor) -> None:
        self.ends = out_channels, channels
        self.count = channels
        self.values = torch.ones(channels, dtype=like.dtype, device=like.device)
        self.version = 0
        self.is_static = True


Weights = ActiveWeights | IdentityWeights
"""What a convolution multiplies with."""


@dataclass(frozen=True, eq=False)
class Grouped:
    """Non-zeros grouped by the channel at one end, all int32. Entries beyond `start[-1]` are never read.

    Args:
        start: (groups + 1,) where each group begins.
        channel: (n,) the channel at the other end.
        tap: (n,) kernel row * kernel size + kernel column.
        place: (n,) where the weight stands among the active weights.
    """

    start: Tensor
    channel: Tensor
    tap: Tensor
    place: Tensor

    def among(self, channels: Tensor) -> "Grouped":
        """The non-zeros whose channel at the other end is one of these, given as a mask (uint8)."""
        kept = channels[self.channel.long()].bool()
        before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
        return Grouped(before[self.start.long()].int(), self.channel[kept], self.tap[kept], self.place[kept])

    @property
    def occupied(self) -> Tensor:
        """(groups,) uint8: whether a group has any non-zero."""
        return (self.start.diff() > 0).byte()


@dataclass(frozen=True, eq=False)
class NonzeroIndex:
    """The non-zeros of a layer by output channel and by input channel."""

    by_output: Grouped
    by_input: Grouped

    @classmethod
    def of(cls, weights: Weights) -> "NonzeroIndex":
        """The index of a layer whose weight is contiguous, or of the identity, on the CPU."""
        out_channels, in_channels = ends_of(weights)
        if isinstance(weights, IdentityWeights):
            diagonal, tap = torch.arange(in_channels), torch.zeros(in_channels, dtype=torch.int64)
            return cls(
                _grouped(diagonal, out_channels, diagonal, tap, diagonal),
                _grouped(diagonal, in_channels, diagonal, tap, diagonal),
            )
        taps = weights.layer.weight[0, 0].numel()
        count = weights.count
        positions = torch.arange(count) if weights.positions is None else weights.positions[:count].cpu()
        channels, tap = positions // taps, positions % taps
        outputs, inputs = channels // in_channels, channels % in_channels
        place = torch.arange(len(positions))
        by_input = inputs.argsort(stable=True)
        return cls(
            _grouped(outputs, out_channels, inputs, tap, place),
            _grouped(inputs[by_input], in_channels, outputs[by_input], tap[by_input], by_input),
        )


def ends_of(weights: Weights) -> tuple[int, int]:
    """Output and input channels."""
    if isinstance(weights, IdentityWeights):
        return weights.ends
    out_channels, in_channels = weights.layer.weight.shape[:2]
    return out_channels, in_channels


def _grouped(group: Tensor, groups: int, channel: Tensor, tap: Tensor, place: Tensor) -> Grouped:
    start = torch.searchsorted(group.contiguous(), torch.arange(groups + 1))
    return Grouped(start.int(), channel.int(), tap.int(), place.int())
