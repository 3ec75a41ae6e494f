"""Opens a prepared data set: reads it into memory, and verifies it by its digest and by the facts of the data set."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from east.config.run import ImagesSpec
from east.data.catalog import info_of, of_name
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, ImagesManifest, again, read_manifest
from east.data.source import Parts
from east.errors import EastError
from east.files import read_regular

HEADER_BYTES = 2**20
"""More than a tensor file has beside its tensors."""


@dataclass(frozen=True, eq=False)
class Images(Parts):
    """A data set that fits in memory.

    Attributes:
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations of the same pixels.
        num_classes: classes.
        digest: `dataset_digest` of all these.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    digest: str


def dataset_digest(
    tensors: Mapping[str, Tensor], *, mean: tuple[float, ...], std: tuple[float, ...], num_classes: int
) -> str:
    """The digest (`digest_tensors`) of everything that the batches of a data set are made from.

    Args:
        tensors: images and labels, by their names in the tensor file.
        mean: channel means of pixels in [0, 1], digested as a float64 tensor `mean`.
        std: channel standard deviations of the same pixels, digested as a float64 tensor `std`.
        num_classes: classes, digested as an int64 tensor `num_classes`.
    """
    facts = {
        "mean": torch.tensor(mean, dtype=torch.float64),
        "std": torch.tensor(std, dtype=torch.float64),
        "num_classes": torch.tensor(num_classes),
    }
    return digest_tensors({**tensors, **facts})


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, in hexadecimal.

    What is hashed: for each tensor, sorted by name, a line `name dtype shape`, such as `mean float64 3` or
    `images uint8 10x3x8x8`, then its elements in row-major order as little-endian bytes.

    Args:
        tensors: by name, on any device and in any memory layout.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        elements = tensors[name].detach().contiguous().cpu().numpy()
        found.update(f"{name} {elements.dtype.name} {'x'.join(map(str, elements.shape))}\n".encode())
        found.update(np.ascontiguousarray(elements.astype(elements.dtype.newbyteorder("<"), copy=False)).data)
    return found.hexdigest()


def load_images(images: ImagesSpec | str, data_dir: Path) -> Images:
    """Read a prepared data set into memory and verify it.

    It is read rather than mapped: of a mapped file, what another process cuts off or writes over is lost to this one,
    which is killed (SIGBUS) or trains on what was never verified. The price is the file's size in memory for each
    process, and once more while it is read; of the peak of a training on CIFAR-10, 1.26 GB, it makes 1.38 GB.

    Raises:
        EastError: it is not prepared, does not match its manifest or its facts, or differs from what this version
            prepares.
    """
    images = of_name(images)
    manifest = read_manifest(ImagesManifest, images, data_dir)
    path = data_dir / images.store / TENSOR_FILE
    fix = again(images, data_dir)
    if problem := _wrong_manifest(images, manifest):
        raise EastError(f"{path.with_name(MANIFEST_FILE)}: {problem}. {fix}")
    at_most = HEADER_BYTES + sum(kind.itemsize * math.prod(shape) for kind, shape in expected(images).values())
    try:
        tensors: dict[str, Any] = load(read_regular(path, at_most=at_most))
    except FileNotFoundError:
        raise EastError(f"{path} is missing, although its manifest exists. {fix}") from None
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}. {fix}") from error
    except (SafetensorError, LookupError, ValueError, RuntimeError) as error:
        raise EastError(f"{path} is damaged: {error}. {fix}") from error
    if problem := wrong_images(images, tensors):
        raise EastError(f"{path}: {problem}. {fix}")
    facts: dict[str, Any] = {"mean": manifest.mean, "std": manifest.std, "num_classes": manifest.num_classes}
    found = dataset_digest(tensors, **facts)
    if found != manifest.digest:
        raise EastError(
            f"{path} or its {MANIFEST_FILE} is damaged: the digest of the images is {found}, but the manifest says "
            f"{manifest.digest}. {fix}"
        )
    refuse_others(images, found, f"{path}: ", fix)
    return Images(digest=found, **tensors, **facts)


def expected(images: ImagesSpec | str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The tensors of a data set by its facts: name -> type and shape."""
    info = info_of(images)
    return {
        name: (kind, (count, *shape))
        for part, count in (("train", info.train_images), ("test", info.test_images))
        for name, kind, shape in (
            (f"{part}_images", torch.uint8, info.image_shape),
            (f"{part}_labels", torch.int64, ()),
        )
    }


def wrong_images(images: ImagesSpec | str, tensors: Mapping[str, Tensor]) -> str:
    """What sets tensors apart from the facts of a data set, in words; empty where nothing does.

    A digest says that they are what was once prepared, and nothing of what that was.
    """
    info, wanted = info_of(images), expected(images)
    classes = info.num_classes
    if tensors.keys() != wanted.keys():
        return f"there are {', '.join(sorted(tensors))} in it, not {', '.join(sorted(wanted))}"
    for name, (kind, shape) in wanted.items():
        found = tensors[name]
        if (found.dtype, tuple(found.shape)) != (kind, shape):
            what, right = (
                f"{str(k).removeprefix('torch.')} {_by(s)}" for k, s in ((found.dtype, found.shape), (kind, shape))
            )
            return f"{name} are {what}, but {info.label} has {right}"
        if name.endswith("labels"):
            lowest, highest = found.min().item(), found.max().item()
            if not 0 <= lowest <= highest < classes:
                return f"{name} go from {lowest} to {highest}, not from 0 to {classes - 1}"
            if (there := int(found.bincount().count_nonzero())) != classes:
                return f"{name} are of {there} classes, not of {classes}"
    return ""


def _wrong_manifest(images: ImagesSpec, manifest: ImagesManifest) -> str:
    """What sets a manifest apart from the facts of its data set, in words; empty where nothing does."""
    info, shapes = info_of(images), {name: shape for name, (_, shape) in expected(images).items()}
    if manifest.num_classes != info.num_classes:
        return f"it has {manifest.num_classes} classes, but {info.label} has {info.num_classes}"
    if manifest.shapes != shapes:
        return f"its shapes are not those of {info.label}"
    for name, found, fixed in (("mean", manifest.mean, info.mean), ("std", manifest.std, info.std)):
        if len(found) != info.image_shape[0] or (name == "std" and min(found) <= 0):
            return f"its {name} must be {info.image_shape[0]} {'positive ' if name == 'std' else ''}numbers"
        if fixed not in (None, found):
            return f"its {name} is not that of {info.label}"
    return ""


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def refuse_others(images: ImagesSpec | str, digest: str, where: str, fix: str) -> None:
    """Refuse images whose digest is not that of their data set, if it has one.

    Raises:
        EastError: the digests differ; the message begins with where the images are and ends with what to do.
    """
    info = info_of(images)
    if info.digest not in (None, digest):
        raise EastError(
            f"{where}these are not the {info.label} images that results refer to: their digest is {digest}, "
            f"not {info.digest}. {fix}"
        )
