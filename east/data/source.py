"""What reading raw data takes and gives: a torchvision that works, and images with the files they came from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from east.data.manifest import SourceFile
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class Parts:
    """Images, uint8 [N, C, H, W], and labels, int64 [N] in 0..classes-1: to train on or validate, and to test on."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class SourceImages(Parts):
    """A data set as read from its source.

    Attributes:
        sources: the files that were read, with the checksums that they were verified by.
        classes: names of the classes, where the source has them.
    """

    sources: tuple[SourceFile, ...]
    classes: tuple[str, ...] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in the tensor file."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return {name: getattr(self, name).contiguous() for name in names}


def as_source(found: Any, size: tuple[int, int]) -> SourceImages:
    """What a reader gives, as it is stored: color images with channels first, grey ones repeated on three channels.

    Networks take three channels, so that one described for color images is the same for grey ones.

    Args:
        found: images and labels of both parts, as arrays or tensors, in this order; or `SourceImages`.
        size: height and width that images have.

    Raises:
        ValueError: it is something else; in words.
    """
    sources: tuple[SourceFile, ...] = ()
    classes: tuple[str, ...] | None = None
    if isinstance(found, SourceImages):
        sources, classes = found.sources, found.classes
        found = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    if not isinstance(found, tuple | list) or len(found) != 4:
        raise ValueError(f"it gave {type(found).__name__}, not four arrays")
    train_images, train_labels, test_images, test_labels = (
        _tensor(part, name)
        for part, name in zip(found, ("train images", "train labels", "test images", "test labels"), strict=True)
    )
    return SourceImages(
        _colored(train_images, "train images", size),
        _labels(train_labels, len(train_images), "train labels"),
        _colored(test_images, "test images", size),
        _labels(test_labels, len(test_images), "test labels"),
        sources,
        classes,
    )


def _tensor(part: Any, name: str) -> Tensor:
    try:
        return part if isinstance(part, Tensor) else torch.from_numpy(np.ascontiguousarray(part))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} are no array of numbers ({error})") from None


def _colored(images: Tensor, name: str, size: tuple[int, int]) -> Tensor:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8:
        raise ValueError(f"the {name} are {str(images.dtype).removeprefix('torch.')}, not bytes from 0 to 255 (uint8)")
    if shape[1:] == size:
        images = images.unsqueeze(1)
    elif len(shape) == 4 and shape[1:3] == size and shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    elif len(shape) != 4 or shape[2:] != size or shape[1] not in (1, 3):
        raise ValueError(f"the {name} are {' x '.join(map(str, shape))}, and images are to be {size[0]} x {size[1]}")
    return images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)


def _labels(labels: Tensor, count: int, name: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"the {name} are {str(labels.dtype).removeprefix('torch.')}, not whole numbers")
    if tuple(labels.shape) != (count,):
        raise ValueError(f"the {name} are {' x '.join(map(str, labels.shape))} numbers for {count} images")
    return labels.to(torch.int64)


def require_torchvision() -> None:
    """Import torchvision, which only some data sets need.

    Raises:
        EastError: it is missing, or was built for another build of PyTorch than the one installed.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise EastError(
            f"torchvision does not work with the installed PyTorch {torch.__version__} ({error}). "
            "Install a matching pair with `make setup`."
        ) from error
