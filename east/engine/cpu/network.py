"""A network as a list of units in the order of execution, with the activations between them."""

from dataclasses import dataclass, field
from typing import cast

from torch import Tensor, nn

from east.errors import EastError
from east.models.blocks import Block, Conv, SharingBlock, masked_part
from east.models.dct import DCTConv2d, DCTLinear
from east.models.dyrelu import DyReLU
from east.models.resnet import ResNet
from east.sparse.layers import MaskedConv2d, MaskedLinear, masked_layers

GradientKey = tuple[bool, int, int, int]
"""Whether an activation is lasting, and its shape."""


@dataclass(eq=False)
class Activation:
    """What units read and write.

    Attributes:
        channels, height, width: its size for one image.
        lasting: whether it is the output of a block or of the stem, and not one inside a block.
        producer: the node that writes it; None for the images.
        readers: the units whose convolution reads it.
    """

    channels: int
    height: int
    width: int
    lasting: bool
    producer: "Unit | Pool | None" = field(default=None, repr=False)
    readers: list["Unit"] = field(default_factory=list, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def gradient_key(self) -> GradientKey:
        """Activations with the same key have their gradients in the same memory.

        Along the outputs of blocks of one size, a gradient becomes that of the block before in place. Inside a block,
        one is used up before the next one is written.
        """
        return (self.lasting, *self.shape)


@dataclass(eq=False)
class Unit:
    """One use of a convolution, with the batch norm, residual and activation that follow it.

    Attributes:
        layer: name of the masked layer.
        conv: the layer itself.
        dct: the DCT layer that the masked one is part of, if it is.
        alpha: the factor of the DCT matrix here.
        scale: the factor of a shared weight here; None for 1.
        norm: the batch norm.
        dyrelu: the activation, where it is a DyReLU (which may be retired); None for a ReLU.
        rectify: whether there is an activation at all.
        x, y: input and output.
        residual: added before the activation.
    """

    layer: str
    conv: MaskedConv2d
    dct: DCTConv2d | None
    alpha: Tensor | None
    scale: nn.Parameter | None
    norm: nn.BatchNorm2d
    dyrelu: DyReLU | None
    rectify: bool
    x: Activation
    y: Activation
    residual: Activation | None

    @property
    def dynamic(self) -> DyReLU | None:
        """The DyReLU as long as it is not retired."""
        return None if self.dyrelu is None or self.dyrelu.retired else self.dyrelu

    def dense_weight(self) -> Tensor:
        """The weight (out, in, kernel, kernel) of this use, off ones included: scale * S, or that + alpha * D."""
        weight = self.conv.weight.detach()
        if self.scale is not None:
            weight = weight * self.scale.detach()
        if self.dct is not None and self.alpha is not None:
            weight = weight + self.alpha.detach() * self.dct.dct.weight
        return weight


@dataclass(eq=False)
class Pool:
    """The max-pool behind the stem of networks for large images: window 3, stride 2, padding 1."""

    x: Activation
    y: Activation
    kernel: int = 3
    stride: int = 2
    padding: int = 1


@dataclass(eq=False)
class Head:
    """The classifier on the means of the last activation.

    Attributes:
        layer: name of the masked layer.
        linear: the layer itself.
        dct: the DCT layer that the masked one is part of, if it is.
        x: its input before the mean.
    """

    layer: str
    linear: MaskedLinear
    dct: DCTLinear | None
    x: Activation


@dataclass(eq=False)
class Network:
    """A network in the order of execution.

    Attributes:
        images: the input.
        nodes: units and pools.
        head: the classifier.
    """

    images: Activation
    nodes: list[Unit | Pool]
    head: Head

    @property
    def units(self) -> list[Unit]:
        """The nodes that are units."""
        return [node for node in self.nodes if isinstance(node, Unit)]

    def check_statistics(self, batch: int) -> None:
        """Refuse to train on so many images where they give no batch statistics.

        Raises:
            EastError: a channel has a single number.
        """
        if batch * min(unit.y.height * unit.y.width for unit in self.units) == 1:
            raise EastError("training needs more than one number a channel for batch norm: take a batch of 2 or more.")


def describe(model: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """A network for images of this shape (C, H, W).

    Raises:
        EastError: the network is of a kind that the sparse engine does not know, or takes other images.
    """
    if not isinstance(model, ResNet):
        raise EastError(
            f"the sparse engine executes the networks of east.models, not a {type(model).__name__}; use engine: dense."
        )
    if image_shape[0] != model.in_channels:
        raise EastError(f"the network takes images of {model.in_channels} channels, not of {image_shape[0]}.")
    return _Describer(model).describe(image_shape)


class _Describer:
    def __init__(self, model: ResNet) -> None:
        self.model = model
        self.names = {layer: name for name, layer in masked_layers(model).items()}
        self.nodes: list[Unit | Pool] = []

    def describe(self, image_shape: tuple[int, int, int]) -> Network:
        images = Activation(*image_shape, lasting=True)
        model = self.model
        x = self._unit(model.conv1, model.bn1, model.act1, images, lasting=True)
        if model.max_pool:
            x = self._pool(x)
        for block, owner in model.blocks():
            x = self._block(block, owner, x)
        classifier = model.classifier
        dct = classifier if isinstance(classifier, DCTLinear) else None
        linear = classifier.sparse if isinstance(classifier, DCTLinear) else classifier
        return Network(images, self.nodes, Head(self.names[linear], linear, dct, x))

    def _block(self, block: Block | SharingBlock, owner: Block, x: Activation) -> Activation:
        shortcut, convs = x, list(enumerate(owner.convs, start=1))
        inner = x
        for i, conv in convs[:-1]:
            inner = self._part(block, i, conv, inner, lasting=False)
        if isinstance(block, Block) and block.shortcut is not None:
            conv, norm = cast("tuple[Conv, nn.BatchNorm2d]", tuple(block.shortcut))
            shortcut = self._unit(conv, norm, None, x, lasting=True, rectify=False)
        return self._part(block, *convs[-1], inner, lasting=True, residual=shortcut)

    def _part(
        self, block: nn.Module, i: int, conv: Conv, x: Activation, *, lasting: bool, residual: Activation | None = None
    ) -> Activation:
        return self._unit(
            conv,
            getattr(block, f"bn{i}"),
            getattr(block, f"act{i}"),
            x,
            lasting=lasting,
            residual=residual,
            scale=getattr(block, f"scale{i}", None),
            alpha=getattr(block, f"alpha{i}", None),
        )

    def _unit(
        self,
        conv: Conv,
        norm: nn.BatchNorm2d,
        dyrelu: DyReLU | None,
        x: Activation,
        *,
        lasting: bool,
        rectify: bool = True,
        residual: Activation | None = None,
        scale: nn.Parameter | None = None,
        alpha: nn.Parameter | None = None,
    ) -> Activation:
        masked = masked_part(conv)
        height, width = (_size(size, masked) for size in (x.height, x.width))
        y = Activation(masked.out_channels, height, width, lasting)
        dct = conv if isinstance(conv, DCTConv2d) else None
        if dct is not None and alpha is None:
            alpha = dct.alpha
        unit = Unit(self.names[masked], masked, dct, alpha, scale, norm, dyrelu, rectify, x, y, residual)
        y.producer = unit
        x.readers.append(unit)
        self.nodes.append(unit)
        return y

    def _pool(self, x: Activation) -> Activation:
        y = Activation(x.channels, (x.height - 1) // 2 + 1, (x.width - 1) // 2 + 1, lasting=True)
        y.producer = Pool(x, y)
        self.nodes.append(y.producer)
        return y


def _size(size: int, conv: MaskedConv2d) -> int:
    return (size + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1
