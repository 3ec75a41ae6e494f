"""A network as a list of units in the order of execution, with the activations between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from torch import Tensor, nn

from east.errors import EastError
from east.models.blocks import Block, Conv, SharingBlock, masked_part
from east.models.dct import DCTConv2d, DCTLinear
from east.models.dyrelu import DyReLU
from east.models.resnet import ResNet
from east.sparse.active import ActiveWeights
from east.sparse.layers import MaskedConv2d, MaskedLinear, masked_layers

GradientKey = tuple[bool, bool, int, int, int]
"""Whether an activation is lasting, and its shape."""


class Window(NamedTuple):
    """What a square convolution or pool looks at: kernel size, stride and padding."""

    kernel: int
    stride: int
    padding: int

    def outputs(self, size: int) -> int:
        """Outputs along a side of the input."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(eq=False)
class Activation:
    """What units read and write.

    Attributes:
        channels, height, width: its size for one image.
        lasting: whether it is the output of a block or of the stem, and not one inside a block.
        pooled: whether a max-pool reads it, whose gradient cannot be found in place even where both are one position.
        producer: the node that writes it; None for the images.
        readers: the units whose convolution reads it.
    """

    channels: int
    height: int
    width: int
    lasting: bool
    pooled: bool = False
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
        return (self.lasting, self.pooled, *self.shape)


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
    def window(self) -> Window:
        """What the convolution looks at."""
        return _window_of(self.conv)

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


POOL_WINDOW = Window(kernel=3, stride=2, padding=1)


@dataclass(eq=False)
class Pool:
    """The max-pool behind the stem of networks for large images."""

    x: Activation
    y: Activation
    window: Window = POOL_WINDOW


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
    """A network in the order of execution."""

    images: Activation
    nodes: list[Unit | Pool]
    head: Head

    @property
    def units(self) -> list[Unit]:
        """The nodes that are units."""
        return [node for node in self.nodes if isinstance(node, Unit)]

    @property
    def uses(self) -> dict[str, list[Unit]]:
        """The units of each masked layer but the classifier, by its name; a shared one has several."""
        found: dict[str, list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.layer, []).append(unit)
        return found


def network_of(model: nn.Module, image_shape: tuple[int, int, int]) -> Network:
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


def executes_everything(model: nn.Module, active: Mapping[str, ActiveWeights]) -> bool:
    """Whether there is no zero to leave out: each masked layer has a full mask or a dense part."""
    within = {module.sparse for module in model.modules() if isinstance(module, DCTConv2d | DCTLinear)}
    return all(weights.is_full or weights.layer in within for weights in active.values())


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
            window = POOL_WINDOW
            y = Activation(x.channels, window.outputs(x.height), window.outputs(x.width), lasting=True)
            x.pooled = True
            y.producer = Pool(x, y)
            self.nodes.append(y.producer)
            x = y
        for block, owner in model.blocks():
            x = self._block(block, owner, x)
        classifier = model.classifier
        dct = classifier if isinstance(classifier, DCTLinear) else None
        linear = classifier.sparse if isinstance(classifier, DCTLinear) else classifier
        return Network(images, self.nodes, Head(self.names[linear], linear, dct, x))

    def _block(self, block: Block | SharingBlock, owner: Block, x: Activation) -> Activation:
        y = x
        for i, conv in enumerate(owner.convs, start=1):
            residual = None
            if i == len(owner.convs):
                residual = x
                if isinstance(block, Block) and block.shortcut is not None:
                    shortcut, norm = cast("tuple[Conv, nn.BatchNorm2d]", tuple(block.shortcut))
                    residual = self._unit(shortcut, norm, None, x, lasting=True, rectify=False)
            y = self._unit(
                conv,
                getattr(block, f"bn{i}"),
                getattr(block, f"act{i}"),
                y,
                lasting=residual is not None,
                residual=residual,
                scale=getattr(block, f"scale{i}", None),
                alpha=getattr(block, f"alpha{i}", None),
            )
        return y

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
        window = _window_of(masked)
        y = Activation(masked.out_channels, window.outputs(x.height), window.outputs(x.width), lasting)
        dct = conv if isinstance(conv, DCTConv2d) else None
        if dct is not None and alpha is None:
            alpha = dct.alpha
        unit = Unit(self.names[masked], masked, dct, alpha, scale, norm, dyrelu, rectify, x, y, residual)
        y.producer = unit
        x.readers.append(unit)
        self.nodes.append(unit)
        return y


def _window_of(conv: MaskedConv2d) -> Window:
    return Window(conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
