"""How the networks are built, as numbers: kinds of block, stems, and the shape of every masked tensor.

Without PyTorch, so that a plan can be checked before anything is loaded; `east.models.resnet` builds from the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

STAGES = (3, 4, 6, 3)
"""Blocks of each stage, in every network."""

IMAGE_CHANNELS = 3
STEM_KERNEL = 3
"""Unless a network has its own."""


@dataclass(frozen=True)
class Design:
    """The convolutions of a block, in order.

    Args:
        kernels: their kernel sizes.
        widths: their output channels, in units of the stage's width.
        strided: index of the one that carries the block's stride.
    """

    kernels: tuple[int, ...]
    widths: tuple[int, ...]
    strided: int


BASIC = Design(kernels=(3, 3), widths=(1, 1), strided=0)
BOTTLENECK = Design(kernels=(1, 3, 1), widths=(1, 1, 4), strided=1)


NETWORKS: dict[str, dict[str, Any]] = {
    "resnet34": {"design": BASIC},
    "resnet50": {"design": BOTTLENECK},
    "resnet50_imagenet": {"design": BOTTLENECK, "stem_kernel": 7, "stem_stride": 2, "max_pool": True},
}
"""How the networks differ: arguments of `ResNet` by name. All have the same `STAGES`."""


@dataclass(frozen=True)
class NetworkSize:
    """What a network stores, and what it stands for.

    Attributes:
        shapes: name -> shape of every masked tensor, in the order of the network.
        dense_weights: weights of the dense network; with weight sharing more than are stored.
    """

    shapes: dict[str, tuple[int, ...]]
    dense_weights: int

    @property
    def stored_weights(self) -> int:
        """Weights of all masked tensors, on and off."""
        return sum(map(prod, self.shapes.values()))


@cache
def network_size(
    name: str, num_classes: int, *, width: int, sharing_ratio: int | None = None, dct: bool = False
) -> NetworkSize:
    """The masked tensors of a network, without building it; arguments as for `east.models.build_model`."""
    design, part = NETWORKS[name]["design"], ".sparse" if dct else ""
    kernel = NETWORKS[name].get("stem_kernel", STEM_KERNEL)
    shapes: dict[str, tuple[int, ...]] = {f"conv1{part}": (width, IMAGE_CHANNELS, kernel, kernel)}
    channels, shared = width, 0
    for number, depth in enumerate(STAGES):
        owners = owning_blocks(depth, sharing_ratio)
        for index in range(owners):
            strided = number > 0 and index == 0
            block = dict(_block_shapes(design, channels, width * 2**number, strided=strided, part=part))
            shapes |= {f"stages.{number}.{index}.{layer}": shape for layer, shape in block.items()}
            channels = width * 2**number * design.widths[-1]
        shared += (depth - owners) * sum(prod(shape) for layer, shape in block.items() if layer.startswith("conv"))
    shapes[f"classifier{part}"] = (num_classes, channels)
    return NetworkSize(shapes, sum(map(prod, shapes.values())) + shared)


def owning_blocks(depth: int, sharing_ratio: int | None) -> int:
    """Blocks of a stage of some depth that own their weights; those after them reuse the last one's."""
    return depth if sharing_ratio is None else min(depth, sharing_ratio)


def last_positions(name: str, height: int, width: int) -> int:
    """Positions of an image that the last stage still tells apart: each stride of 2 halves both sides, rounded up."""
    stem = NETWORKS[name]
    halvings = len(STAGES) - 1 + sum((stem.get("stem_stride", 1) == 2, stem.get("max_pool", False)))
    return prod(-(-side // 2**halvings) for side in (height, width))


def _block_shapes(
    design: Design, in_channels: int, width: int, *, strided: bool, part: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The convolutions of a block that owns them, and of its shortcut where it is not the identity."""
    channels = [in_channels, *(width * factor for factor in design.widths)]
    for i, kernel in enumerate(design.kernels):
        yield f"conv{i + 1}{part}", (channels[i + 1], channels[i], kernel, kernel)
    if strided or channels[0] != channels[-1]:
        yield f"shortcut.0{part}", (channels[-1], channels[0], 1, 1)
