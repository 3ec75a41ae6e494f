"""The ResNets of the paper by name, for small images and for ImageNet, with masked layers throughout."""

from collections.abc import Iterator
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from east.errors import EastError
from east.models.blocks import Block, Parts, SharingBlock, apply_activation
from east.models.designs import IMAGE_CHANNELS, NETWORKS, STAGES, Design, owning_blocks

ACTIVATIONS = ("relu", "dyrelu")


class ResNet(nn.Module):
    """A residual network whose stem, block convolutions, shortcuts and classifier are all masked.

    Args:
        design: the kind of block.
        blocks: number of blocks in each stage.
        num_classes: outputs of the classifier.
        width: channels of the stem; stage s has width * 2^s.
        parts: kinds of layer and activation.
        sharing_ratio: blocks of a stage that own weights; later ones reuse those of the last owner. None: all.
        stem_kernel: kernel size of the first convolution.
        stem_stride: its stride.
        max_pool: whether a 3x3 max-pool of stride 2 follows the stem.
    """

    def __init__(
        self,
        design: Design,
        blocks: tuple[int, ...],
        num_classes: int,
        *,
        width: int,
        parts: Parts,
        sharing_ratio: int | None = None,
        stem_kernel: int = 3,
        stem_stride: int = 1,
        max_pool: bool = False,
    ) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.in_channels = IMAGE_CHANNELS
        self.conv1 = parts.conv(self.in_channels, width, stem_kernel, stem_stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = parts.activation(width)
        self.stages = nn.ModuleList()
        channels = width
        for number, depth in enumerate(blocks):
            stage: list[Block | SharingBlock] = []
            owners = owning_blocks(depth, sharing_ratio)
            for index in range(owners):
                stride = 2 if number > 0 and index == 0 else 1
                source = Block(design, channels, width * 2**number, stride, parts)
                channels = width * 2**number * design.widths[-1]
                stage.append(source)
            stage.extend(SharingBlock(source, parts) for _ in range(depth - owners))
            self.stages.append(nn.ModuleList(stage))
        self.classifier = parts.linear(channels, num_classes)

    def blocks(self) -> Iterator[tuple[Block | SharingBlock, Block]]:
        """Every block in order, with the block that owns its convolutions (itself, unless it shares)."""
        for stage in self.stages:
            for block in cast("list[Block | SharingBlock]", stage):
                if isinstance(block, Block):
                    owner = block
                yield block, owner

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images x (N, 3, H, W)."""
        x = apply_activation(self.act1, self.bn1(self.conv1(x)))
        if self.max_pool:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block, owner in self.blocks():
            x = block(x, owner) if isinstance(block, SharingBlock) else block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def build_model(
    name: str,
    num_classes: int,
    activation: str = "relu",
    sharing_ratio: int | None = None,
    dct: bool = False,
    width: int = 64,
) -> ResNet:
    """Build a network with all weights on and PyTorch's default initialisation, from the global random state.

    Args:
        name: a key of `NETWORKS`.
        num_classes: outputs of the classifier.
        activation: `relu` or `dyrelu`.
        sharing_ratio: blocks of a stage that own weights, at least 2; None for no sharing.
        dct: add a fixed DCT matrix to every masked layer (DCTpS).
        width: channels of the stem, 64 in the paper.

    Raises:
        EastError: the name or activation is unknown, or a number is out of range.
    """
    if name not in NETWORKS:
        raise EastError(f"unknown model '{name}'. Choose one of {', '.join(NETWORKS)}.")
    if activation not in ACTIVATIONS:
        raise EastError(f"unknown activation '{activation}'. Choose one of {', '.join(ACTIVATIONS)}.")
    if sharing_ratio is not None and sharing_ratio < 2:
        raise EastError(
            f"sharing_ratio {sharing_ratio} is too small: the first block of a stage has a different input width from "
            "the rest, so at least 2 blocks must own weights."
        )
    if num_classes < 1 or width < 1:
        raise EastError(f"num_classes ({num_classes}) and width ({width}) must be at least 1.")
    return ResNet(
        blocks=STAGES,
        num_classes=num_classes,
        width=width,
        parts=Parts(dct=dct, dyrelu=activation == "dyrelu"),
        sharing_ratio=sharing_ratio,
        **NETWORKS[name],
    )
