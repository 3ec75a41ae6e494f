"""The facts of data sets: names in print, sizes, classes and normalization (pure Python, no PyTorch)."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from east.config.choices import named
from east.config.run import ImagesSpec, RunSpec
from east.data.kind import SIZE, STREAMED, DatasetFacts, dataset
from east.errors import EastError
from east.registry import Entry

LABELS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "digits": "Digits",
    "digit_pairs": "Digit pairs",
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "svhn": "SVHN",
    "stl10": "STL-10",
    "tiny_imagenet": "Tiny ImageNet",
    "imagenette": "Imagenette",
}
"""How tables and plots print a data set; any other is printed by its name."""


@dataclass(frozen=True)
class DatasetInfo:
    """What must be known of a data set before its images are there.

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
        by_class: whether training images come class by class; of a plugin's nothing is known.
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
    by_class: bool = False


def size_of_images(entry: Entry, parameters: dict[str, int]) -> tuple[int, int] | None:
    """Height and width of the images of a data set with some parameters; None if nothing says them."""
    side = next((one.default for one in entry.parameters if one.name == SIZE), None)
    side = parameters.get(SIZE, side)
    facts: DatasetFacts = entry.facts
    return facts.image_size if side in (None, inspect.Parameter.empty) else (side, side)


def _own_facts() -> dict[str, DatasetInfo]:
    found = {}
    for entry in dataset:
        facts: DatasetFacts = entry.facts
        size = size_of_images(entry, {})
        if facts.classes is None or facts.train_images is None or facts.test_images is None or size is None:
            continue  # a configuration says them, or the folder itself
        found[entry.name] = DatasetInfo(
            label=LABELS[entry.name],
            num_classes=facts.classes,
            image_shape=(3, *size),
            train_images=facts.train_images,
            test_images=facts.test_images,
            mean=facts.mean,
            std=facts.std,
            train_per_class=facts.train_per_class,
            test_per_class=facts.test_per_class,
            digest=facts.digest,
            by_class=facts.by_class,
        )
    return found


DATASETS: dict[str, DatasetInfo] = _own_facts()
"""The project's own data sets with their defaults, as far as their numbers are known before they are there."""


def of_name(images: ImagesSpec | str) -> ImagesSpec:
    """Images that are described, or the project's own data set of a name.

    Raises:
        EastError: there is none of this name.
    """
    if isinstance(images, ImagesSpec):
        return images
    if images not in DATASETS:
        known = " It takes a configuration, for its folder or parameters." if images in dataset else ""
        raise EastError(f"unknown data set '{images}'.{known} Choose one of {', '.join(DATASETS)}.")
    return ImagesSpec(name=images)


def info_of(images: ImagesSpec | str) -> DatasetInfo:
    """The facts of a data set; what it is prepared from is compared with them.

    Raises:
        EastError: there is none of this name.
    """
    images = of_name(images)
    reader, parameters, plugin = named(images.reader)
    facts, own = images.facts, DATASETS.get(reader) if plugin is None else None
    if facts is None and own is not None:
        if images.source is None:
            return own
        size = size_of_images(dataset[reader], parameters) or own.image_shape[1:]
        return replace(own, label=LABELS.get(images.name, images.name), image_shape=(3, *size))
    if facts is None:
        raise EastError(f"nothing says how many classes and images '{images.name}' has.")
    is_whole = own is not None and (own.train_images, own.test_images) == (facts.train_images, facts.test_images)
    return DatasetInfo(
        label=LABELS.get(images.name, images.name),
        num_classes=facts.classes,
        image_shape=(3, *facts.image_size),
        train_images=facts.train_images,
        test_images=facts.test_images,
        mean=facts.mean,
        std=facts.std,
        train_per_class=own.train_per_class if is_whole and own else None,
        test_per_class=own.test_per_class if is_whole and own else None,
        by_class=plugin is None and dataset[reader].facts.by_class,
    )


def is_streamed(images: ImagesSpec | str) -> bool:
    """Whether images are decoded and scaled while training, by libraries whose versions and instructions must agree."""
    reader, parameters, plugin = named(of_name(images).reader)
    return plugin is None and streams(dataset[reader], parameters)


def streams(entry: Entry, parameters: Mapping[str, object]) -> bool:
    """Whether a reader with some parameters leaves images where they are; a plugin's gives them at once."""
    return entry.plugin is None and (entry.facts.streamed or bool(parameters.get(STREAMED, False)))


def steps_per_epoch(spec: RunSpec) -> int:
    """Optimizer steps of an epoch of a run; the last, smaller batch counts."""
    return math.ceil((info_of(spec.dataset).train_images - spec.dataset.validation) / spec.training.batch_size)
