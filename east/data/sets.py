"""The project's own data sets: what reads each, from the folder of its files.

Without PyTorch until one is read, so that a plan can be made before anything is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from east.data.kind import dataset
from east.parameters import A_NUMBER, Fraction, UnitName

if TYPE_CHECKING:
    from east.data.source import SourceImages

Side = Annotated[int, Field(ge=4, le=1024), A_NUMBER, UnitName("pixels")]
SideOfDigits = Annotated[int, Field(ge=28, le=1024), A_NUMBER, UnitName("pixels")]


# Means and deviations of CIFAR are those of the authors' code (ES2); those of ImageNet are the usual ones.
@dataset(
    classes=10,
    train_images=50_000,
    test_images=10_000,
    image_size=(32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    paper="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
)
def cifar10(folder: Path) -> "SourceImages":
    """CIFAR-10, from its archive or what was unpacked of it; downloaded where neither is there."""
    from east.data.source import require_torchvision

    require_torchvision()
    from torchvision.datasets import CIFAR10

    from east.data.checksums import SHA256
    from east.data.cifar import read_cifar

    return read_cifar(CIFAR10, folder, SHA256["cifar10"])


@dataset(
    classes=100,
    train_images=50_000,
    test_images=10_000,
    image_size=(32, 32),
    mean=(0.50708, 0.48655, 0.44092),
    std=(0.26733, 0.25644, 0.27615),
    paper="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
)
def cifar100(folder: Path) -> "SourceImages":
    """CIFAR-100, from its archive or what was unpacked of it; downloaded where neither is there."""
    from east.data.source import require_torchvision

    require_torchvision()
    from torchvision.datasets import CIFAR100

    from east.data.checksums import SHA256
    from east.data.cifar import read_cifar

    return read_cifar(CIFAR100, folder, SHA256["cifar100"])


@dataset(
    classes=1000,
    train_images=1_281_167,
    test_images=50_000,
    image_size=(224, 224),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    by_class=True,
    streamed=True,
    reads="folder",
    train_per_class=(732, 1300),
    test_per_class=(50, 50),
    paper="Russakovsky et al., ImageNet large scale visual recognition challenge, 2015",
)
def imagenet(folder: Path) -> None:
    """ImageNet, decoded and cropped from its folder while it is trained on."""
    raise NotImplementedError("its images stay where they are")


@dataset(
    classes=10,
    train_images=1_438,
    test_images=359,
    image_size=(12, 12),
    reads="nothing",
    digest="d3dce95be011127f31cf9672f83d092370adc80a9e9a219e6a655a4b86d54b46",
)
def digits(folder: Path) -> "SourceImages":
    """Handwritten digits from scikit-learn, ten classes."""
    from east.data.digits import read_digits

    return read_digits()


@dataset(
    classes=100,
    train_images=4_000,
    test_images=500,
    image_size=(8, 16),
    reads="nothing",
    digest="cf70f2ee29eb771ae12acdd58038814f7bd6f3ff75b40f260df0c15d0897c390",
)
def digit_pairs(folder: Path) -> "SourceImages":
    """Two of these digits side by side, 100 classes."""
    from east.data.digits import read_digit_pairs

    return read_digit_pairs()


@dataset(
    classes=10,
    train_images=60_000,
    test_images=10_000,
    paper="Xiao, Rasul & Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking, 2017",
)
def fashion_mnist(folder: Path, *, size: SideOfDigits = 32) -> "SourceImages":
    """Fashion-MNIST: grey images of clothes, ten classes, in the middle of black squares.

    Found in the folder, as torchvision or anybody else leaves the four files there, packed or not; then where Debian's
    package `dataset-fashion-mnist` has them; else they are downloaded.

    Args:
        folder: of the files.
        size: of the squares; at 32 networks see as many positions as on CIFAR, 28 leaves the border out.
    """
    from east.data.idx import read_idx

    return read_idx("fashion_mnist", folder, size)


@dataset(
    classes=10,
    train_images=60_000,
    test_images=10_000,
    paper="LeCun et al., Gradient-based learning applied to document recognition, 1998",
)
def mnist(folder: Path, *, size: SideOfDigits = 32) -> "SourceImages":
    """MNIST: grey handwritten digits, ten classes, in the middle of black squares.

    Args:
        folder: of the four files, packed or not; they are downloaded where they are not there.
        size: of the squares; at 32 networks see as many positions as on CIFAR, 28 leaves the border out.
    """
    from east.data.idx import read_idx

    return read_idx("mnist", folder, size)


@dataset(
    classes=10,
    train_images=73_257,
    test_images=26_032,
    paper="Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011",
)
def svhn(folder: Path, *, size: Side = 32) -> "SourceImages":
    """House numbers of street views (SVHN), through torchvision.

    Args:
        folder: of its files; they are downloaded where they are not there.
        size: to which images are scaled.
    """
    from east.data.torchvision_sets import read_torchvision

    return read_torchvision("SVHN", folder, size)


@dataset(
    classes=10,
    train_images=5_000,
    test_images=8_000,
    paper="Coates, Ng & Lee, An analysis of single-layer networks in unsupervised feature learning, 2011",
)
def stl10(folder: Path, *, size: Side = 96) -> "SourceImages":
    """The images of STL-10 that have labels, through torchvision.

    Args:
        folder: of its files; they are downloaded where they are not there.
        size: to which images are scaled.
    """
    from east.data.torchvision_sets import read_torchvision

    return read_torchvision("STL10", folder, size)


@dataset(
    classes=200,
    train_images=100_000,
    test_images=10_000,
    by_class=True,
    paper="Le & Yang, Tiny ImageNet visual recognition challenge, 2015",
)
def tiny_imagenet(folder: Path, *, size: Side = 64) -> "SourceImages":
    """Tiny ImageNet; its validation images are tested on, as the labels of its test images are not public.

    Args:
        folder: `tiny-imagenet-200`, or one that holds it.
        size: to which images are scaled.
    """
    from east.data.decoded import read_tiny_imagenet

    return read_tiny_imagenet(folder, size)


@dataset(
    classes=10,
    train_images=9_469,
    test_images=3_925,
    by_class=True,
    paper="Howard, Imagenette, 2019",
)
def imagenette(folder: Path, *, size: Side = 128) -> "SourceImages":
    """Ten classes of ImageNet that are easy to tell apart (Imagenette 2).

    Args:
        folder: that holds its train/ and val/, or `imagenette2`, `imagenette2-160` or `imagenette2-320`.
        size: of the squares that are cut from the middle of images, whose shorter side is scaled to it.
    """
    from east.data.decoded import read_imagenette

    return read_imagenette(folder, size)


@dataset(by_class=True, reads="folder")
def image_folder(
    folder: Path,
    *,
    size: Side = 64,
    train: str = "train",
    test: str = "val",
    test_share: Fraction = 0.0,
    streamed: bool = False,
) -> "SourceImages":
    """Any folder of images with a folder for each class.

    Args:
        folder: that holds the two parts or, with `test_share`, the classes themselves.
        size: of the squares that are cut from the middle of images, whose shorter side is scaled to it.
        train: folder of the images to train on.
        test: folder of the images that accuracy is reported on.
        test_share: share of the images of each class that are tested on, always the same ones; 0 where parts are
            folders.
        streamed: decode and crop images at random while training, as for ImageNet, in place of once beforehand.
    """
    from east.data.decoded import read_image_folder
    from east.data.listing import FolderLayout

    return read_image_folder(folder, FolderLayout(train, test, test_share), size)


@dataset(name="torchvision")
def torchvision_set(folder: Path, *, dataset: str, size: Side = 32) -> "SourceImages":
    """Any set of torchvision for classification, such as Flowers102 or GTSRB.

    Args:
        folder: of its files; they are downloaded where they are not there.
        dataset: the name of its class in `torchvision.datasets`.
        size: of the squares that are cut from the middle of images, whose shorter side is scaled to it.
    """
    from east.data.torchvision_sets import read_torchvision

    return read_torchvision(dataset, folder, size)
