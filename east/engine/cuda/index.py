"""Where the non-zeros of a layer are, in memory on the device that stays in place while masks change."""

from collections.abc import Iterator

import torch
from torch import Tensor

from east.engine.cpu.index import Grouped, NonzeroIndex
from east.engine.cuda.lists import Lists
from east.sparse.active import ActiveWeights

ALIGNMENT = 4
"""Each list begins at a multiple of so many numbers, which are 16 bytes."""


class ResidentIndex:
    """The non-zeros of a layer by output and by input channel, as kernels walk over them.

    Args:
        weights: the layer's active weights; the weight is contiguous.

    Attributes:
        weights: those.
        capacity: how many non-zeros there is room for: as many as `weights.values` has numbers.
        by_output, by_input: the lists.
    """

    def __init__(self, weights: ActiveWeights) -> None:
        self.weights = weights
        self.capacity = len(weights.values)
        self._version = weights.version
        out_channels, in_channels = weights.layer.weight.shape[:2]
        sizes = [size for groups in (out_channels, in_channels) for size in (groups + 1, *3 * (max(1, self.capacity),))]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        self._memory = torch.zeros(starts[-1], dtype=torch.int32, device=weights.values.device)
        parts = [self._memory[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self.by_output, self.by_input = Lists(*parts[:4]), Lists(*parts[4:])
        self._host = torch.zeros_like(self._memory, device="cpu")
        self._host_parts = [self._host[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self.refill()

    def refill(self) -> None:
        """Write the lists of the non-zeros of the moment."""
        index = NonzeroIndex.of(self.weights)
        for part, new in zip(self._host_parts, (*_lists(index.by_output), *_lists(index.by_input)), strict=True):
            part[: len(new)] = new
        self._memory.copy_(self._host)

    @property
    def still_fits(self) -> bool:
        """Whether the active weights are in the memory in which they were when this was made."""
        same = (self.capacity, self._version) == (len(self.weights.values), self.weights.version)
        return self.weights.is_static and same


def _lists(grouped: Grouped) -> Iterator[Tensor]:
    yield from (grouped.start, grouped.channel, grouped.tap, grouped.value)
