"""The networks, each written from the vocabulary of `east.models.description`."""

from collections.abc import Sequence
from dataclasses import dataclass

from east.models.description import Feature
from east.parameters import PositiveInt
from east.sparse.kinds import network

RESNET = "He et al., Deep Residual Learning for Image Recognition, 2016"
CIFAR_RESNET = f"{RESNET}, Section 4.2"
VGG = "Simonyan & Zisserman, Very Deep Convolutional Networks, 2015; with batch norm, and one classifier"
WIDE = "Zagoruyko & Komodakis, Wide Residual Networks, 2016"


@dataclass(frozen=True)
class Design:
    """The convolutions of a residual block, in order.

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


@network(label="ResNet-18", paper=RESNET)
def resnet18(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """ResNet-18 with the stem for small images: blocks of 3 x 3 and 3 x 3 convolutions.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BASIC, (2, 2, 2, 2), width)


@network(label="ResNet-34", paper=RESNET)
def resnet34(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """ResNet-34 with the stem for small images: blocks of 3 x 3 and 3 x 3 convolutions.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BASIC, (3, 4, 6, 3), width)


@network(label="ResNet-50", paper=RESNET)
def resnet50(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """ResNet-50 with the stem for small images: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BOTTLENECK, (3, 4, 6, 3), width)


@network(label="ResNet-50 (ImageNet)", paper=RESNET)
def resnet50_imagenet(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """ResNet-50 with ImageNet's stem: a 7 x 7 convolution of stride 2 and a max-pool.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BOTTLENECK, (3, 4, 6, 3), width, stem_kernel=7, stem_stride=2, max_pool=True)


@network(label="ResNet-20", paper=CIFAR_RESNET)
def resnet20(images: Feature, classes: int, *, width: PositiveInt = 16) -> Feature:
    """ResNet-20 for CIFAR: three stages of three blocks.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BASIC, (3, 3, 3), width, projects=False)


@network(label="ResNet-32", paper=CIFAR_RESNET)
def resnet32(images: Feature, classes: int, *, width: PositiveInt = 16) -> Feature:
    """ResNet-32 for CIFAR: three stages of five blocks.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BASIC, (5, 5, 5), width, projects=False)


@network(label="ResNet-56", paper=CIFAR_RESNET)
def resnet56(images: Feature, classes: int, *, width: PositiveInt = 16) -> Feature:
    """ResNet-56 for CIFAR: three stages of nine blocks.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return residual(images, classes, BASIC, (9, 9, 9), width, projects=False)


@network(label="VGG-16", paper=VGG)
def vgg16(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """VGG-16 with batch norm: 13 convolutions between 5 max-pools, and one classifier.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the first convolution.
    """
    return _vgg(images, classes, (2, 2, 3, 3, 3), width)


@network(label="VGG-19", paper=VGG)
def vgg19(images: Feature, classes: int, *, width: PositiveInt = 64) -> Feature:
    """VGG-19 with batch norm: 16 convolutions between 5 max-pools, and one classifier.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the first convolution.
    """
    return _vgg(images, classes, (2, 2, 4, 4, 4), width)


@network(label="WideResNet-16-8", paper=WIDE)
def wrn16_8(images: Feature, classes: int, *, width: PositiveInt = 16) -> Feature:
    """WideResNet-16-8: three stages of two pre-activation blocks, 8 times as wide as the stem.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return _wide(images, classes, blocks=2, factor=8, width=width)


@network(label="WideResNet-22-2", paper=WIDE)
def wrn22_2(images: Feature, classes: int, *, width: PositiveInt = 16) -> Feature:
    """WideResNet-22-2: three stages of three pre-activation blocks, twice as wide as the stem.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        width: channels of the stem.
    """
    return _wide(images, classes, blocks=3, factor=2, width=width)


@network(label="MLP", paper="LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998")
def mlp(images: Feature, classes: int, *, hidden: tuple[PositiveInt, ...] = (300, 100)) -> Feature:
    """A perceptron on all pixels; by default LeNet-300-100, without biases as all masked layers.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        hidden: features of each hidden layer.
    """
    x = images.flatten()
    for features in hidden:
        x = x.linear(features).act()
    return x.linear(classes, name="classifier")


def residual(
    images: Feature,
    classes: int,
    design: Design,
    blocks: Sequence[int],
    width: int,
    *,
    stem_kernel: int = 3,
    stem_stride: int = 1,
    max_pool: bool = False,
    projects: bool = True,
) -> Feature:
    """A residual network whose stem, block convolutions, shortcuts and classifier are all masked.

    Args:
        images: what it sees.
        classes: outputs of the classifier.
        design: the kind of block.
        blocks: number of blocks in each stage.
        width: channels of the stem; stage s has width * 2^s.
        stem_kernel: kernel size of the first convolution.
        stem_stride: its stride.
        max_pool: whether a 3x3 max-pool of stride 2 follows the stem.
        projects: whether shortcuts between stages are 1 x 1 convolutions (option B); else they have no weights (A).
    """
    x = images.conv(width, stem_kernel, stride=stem_stride).norm().act()
    if max_pool:
        x = x.max_pool(3, stride=2, padding=1)
    for number, depth in enumerate(blocks):

        def block(x: Feature, index: int, number: int = number) -> Feature:
            stride = 2 if number > 0 and index == 0 else 1
            return _residual_block(x, design, width * 2**number, stride, projects=projects)

        x = x.repeat(depth, block, name=f"stages.{number}")
    return x.mean().linear(classes, name="classifier")


def _residual_block(x: Feature, design: Design, width: int, stride: int, *, projects: bool) -> Feature:
    """Convolutions with batch norm and activation; the shortcut is added before the last activation."""
    y = x
    for i, (kernel, factor) in enumerate(zip(design.kernels, design.widths, strict=True)):
        y = (y.act() if i else y).conv(width * factor, kernel, stride=stride if i == design.strided else 1).norm()
    if stride != 1 or x.shape[0] != y.shape[0]:
        if projects:
            x = x.conv(y.shape[0], 1, stride=stride, name="shortcut.0").norm(name="shortcut.1")
        else:
            x = x.identity(y.shape[0], stride=stride)
    return (y + x).act()


def _vgg(images: Feature, classes: int, depths: Sequence[int], width: int) -> Feature:
    """Stages of convolutions with a max-pool behind each; on images of 32 x 32 a single position is left."""
    x = images
    for number, depth in enumerate(depths):
        for _ in range(depth):
            x = x.conv(width * min(2**number, 8)).norm().act()
        x = x.max_pool()
    return x.mean().linear(classes, name="classifier")


def _wide(images: Feature, classes: int, *, blocks: int, factor: int, width: int) -> Feature:
    """A wide residual network: batch norm and activation stand before each convolution."""
    x = images.conv(width)
    for number in range(3):

        def block(x: Feature, index: int, number: int = number) -> Feature:
            return _wide_block(x, factor * width * 2**number, 2 if number > 0 and index == 0 else 1)

        x = x.repeat(blocks, block, name=f"stages.{number}")
    return x.norm().act().mean().linear(classes, name="classifier")


def _wide_block(x: Feature, width: int, stride: int) -> Feature:
    activated = x.norm().act()
    y = activated.conv(width, stride=stride).norm().act().conv(width)
    if x.shape[0] == width and stride == 1:
        return y + x
    return y + activated.conv(width, 1, stride=stride, name="shortcut")
