"""The data sets: printed name, size, classes and normalization (pure Python, no PyTorch)."""

import math
from dataclasses import dataclass

from east.config.run import RunSpec


@dataclass(frozen=True)
class DatasetInfo:
    """The fixed facts of a data set.

    Attributes:
        label: how tables and plots print it.
        num_classes: classes.
        image_shape: channels, height and width of what the network sees.
        train_images: training images, validation images included.
        test_images: images that accuracy is reported on.
        mean: channel means of pixels in [0, 1]; None if `prepare` computes them from the training images.
        std: channel standard deviations of the same pixels; None as for `mean`.
        train_per_class: fewest and most training images of a class; None if that is not known.
        test_per_class: the same of the test images.
        digest: `dataset_digest` of the prepared set; None unless it is made from an installed package.
    """

    label: str
    num_classes: int
    image_shape: tuple[int, int, int]
    train_images: int
    test_images: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    train_per_class: tuple[int, int] | None = None
    test_per_class: tuple[int, int] | None = None
    digest: str | None = None


FOLDERS_OF_IMAGES = frozenset({"imagenet"})
"""Data sets that are decoded and scaled while training, by libraries whose versions and instructions round alike."""

DATASETS: dict[str, DatasetInfo] = {
    # Means and deviations of CIFAR are those of the authors' code (ES2); those of ImageNet are the usual ones.
    "cifar10": DatasetInfo(
        label="CIFAR-10",
        num_classes=10,
        image_shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    "cifar100": DatasetInfo(
        label="CIFAR-100",
        num_classes=100,
        image_shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        mean=(0.50708, 0.48655, 0.44092),
        std=(0.26733, 0.25644, 0.27615),
    ),
    "imagenet": DatasetInfo(
        label="ImageNet",
        num_classes=1000,
        image_shape=(3, 224, 224),
        train_images=1_281_167,
        test_images=50_000,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        # Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (2015).
        train_per_class=(732, 1300),
        test_per_class=(50, 50),
    ),
    "digits": DatasetInfo(
        label="Digits",
        num_classes=10,
        image_shape=(3, 12, 12),
        train_images=1_438,
        test_images=359,
        digest="d3dce95be011127f31cf9672f83d092370adc80a9e9a219e6a655a4b86d54b46",
    ),
    "digit_pairs": DatasetInfo(
        label="Digit pairs",
        num_classes=100,
        image_shape=(3, 8, 16),
        train_images=4_000,
        test_images=500,
        digest="cf70f2ee29eb771ae12acdd58038814f7bd6f3ff75b40f260df0c15d0897c390",
    ),
}


def steps_per_epoch(spec: RunSpec) -> int:
    """Optimizer steps of an epoch of a run; the last, smaller batch counts."""
    return math.ceil((DATASETS[spec.dataset.name].train_images - spec.dataset.validation) / spec.training.batch_size)
