"""Writes a data set to disk once, whole, with the checksums that every later reader verifies."""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from east.data.catalog import DATASETS
from east.data.checksums import SHA256
from east.data.images import dataset_digest, load_images, refuse_others, wrong_images
from east.data.listing import scan_folder
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, FolderManifest, ImagesManifest, read_manifest, write_manifest
from east.data.source import SourceImages, require_torchvision
from east.errors import EastError
from east.files import write_atomically
from east.locks import locked


def prepare(dataset: str, data_dir: Path, *, folder: Path | None = None) -> Path:
    """Make a data set ready for training, unless manifest and data agree already; return the path of its manifest.

    Several jobs may call this at once: one does the work, the others wait.

    Args:
        dataset: a key of `DATASETS`.
        data_dir: where data sets are stored; downloads go to its sub-folder `raw`.
        folder: for ImageNet, the folder that holds `train/` and `val/`; other data sets ignore it.

    Raises:
        EastError: the name is unknown, or the raw data are missing or damaged.
    """
    match dataset:
        case "cifar10" | "cifar100":
            return store_images(dataset, data_dir, partial(_read_official_cifar, dataset, data_dir / "raw"))
        case "digits" | "digit_pairs":
            return store_images(dataset, data_dir, partial(_read_embedded, dataset))
        case "imagenet":
            return store_folder(dataset, data_dir, folder)
        case _:
            raise EastError(f"unknown data set '{dataset}'. Choose one of {', '.join(DATASETS)}.")


def store_images(dataset: str, data_dir: Path, read: Callable[[], SourceImages]) -> Path:
    """Write the tensor file and then the manifest of a data set, unless both exist and agree.

    Args:
        dataset: a key of `DATASETS`.
        data_dir: where data sets are stored.
        read: reads the source; called only if there is something to write.
    """
    home = data_dir / dataset
    return _store(home, lambda: bool(load_images(dataset, data_dir)), lambda: _write_images(dataset, home, read()))


def store_folder(dataset: str, data_dir: Path, folder: Path | None) -> Path:
    """Write the manifest of an image folder, whose images stay where they are.

    Raises:
        EastError: no folder is given, or it does not hold the data set's classes.
    """
    info = DATASETS[dataset]
    if folder is None:
        raise EastError(
            f"{info.label} cannot be downloaded. Name the folder that holds its train/ and val/ in "
            f"datasets.{dataset}.folder or with --image-folder."
        )
    home = data_dir / dataset
    manifest = scan_folder(dataset, folder)
    return _store(
        home,
        lambda: read_manifest(FolderManifest, dataset, data_dir) == manifest,
        lambda: write_manifest(home, manifest),
    )


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images [N, C, H, W], for pixels in [0, 1].

    Both are computed from sums of integers and rounded once, to the nearest float.
    """
    pixels = images.transpose(0, 1).flatten(1)
    levels = torch.arange(256)
    means, deviations = [], []
    for channel in pixels:
        counts = channel.bincount(minlength=256)
        number, total, squares = (int((counts * levels**power).sum()) for power in (0, 1, 2))
        means.append(total / (255 * number))
        deviations.append(_root_of_ratio(number * squares - total**2, (255 * number) ** 2))
    return tuple(means), tuple(deviations)


def _root_of_ratio(numerator: int, denominator: int) -> float:
    """The square root of a ratio of integers, rounded to the nearest float."""
    # An integer root of more than 64 bits. Its last bit says whether anything follows: all that rounding needs.
    shift = 2 * max(0, 65 + denominator.bit_length() - numerator.bit_length())
    whole, rest = divmod(numerator << shift, denominator)
    root = math.isqrt(whole)
    is_exact = rest == 0 and root * root == whole
    return (2 * root + (not is_exact)) / (2 << shift // 2)


def _read_embedded(dataset: str) -> SourceImages:
    # scikit-learn takes seconds to import, and is not needed where the images are there.
    from east.data.digits import read_digit_pairs, read_digits

    return read_digits() if dataset == "digits" else read_digit_pairs()


def _read_official_cifar(dataset: str, raw: Path) -> SourceImages:
    require_torchvision()
    from torchvision.datasets import CIFAR10, CIFAR100

    from east.data.cifar import read_cifar

    return read_cifar({"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset], raw, SHA256[dataset])


def _store(home: Path, agrees: Callable[[], bool], write: Callable[[], None]) -> Path:
    """Write what is not stored yet, while others wait; returns the path of the manifest."""

    def is_stored() -> bool:
        with suppress(EastError):
            return agrees()
        return False

    # Asked before the lock is taken, so that a data folder owned by others may be read-only.
    if not is_stored():
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            if not is_stored():
                write()
    return home / MANIFEST_FILE


def _write_images(dataset: str, home: Path, source: SourceImages) -> None:
    info = DATASETS[dataset]
    tensors = source.tensors()
    if problem := wrong_images(dataset, tensors):
        raise EastError(f"{info.label} cannot be prepared: {problem}.")
    mean, std = channel_statistics(source.train_images)
    mean, std = info.mean or mean, info.std or std
    digest = dataset_digest(tensors, mean=mean, std=std, num_classes=info.num_classes)
    refuse_others(
        dataset, digest, "", "Install the locked packages with `make setup`: the data set is made from one of them."
    )
    # A manifest must never stand beside a tensor file that it does not describe, not even between two renames.
    (home / MANIFEST_FILE).unlink(missing_ok=True)
    write_atomically(home / TENSOR_FILE, save(tensors))
    manifest = ImagesManifest(
        dataset=dataset,
        digest=digest,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        num_classes=info.num_classes,
        mean=mean,
        std=std,
        sources=source.sources,
    )
    write_manifest(home, manifest)
