"""Reads data sets of torchvision for classification, whatever their classes want to be made with."""

import inspect
from http.client import HTTPException
from pathlib import Path
from typing import Any, SupportsInt

import torch
from PIL import Image
from torch import Tensor

from east.data.source import SourceImages, require_torchvision
from east.errors import EastError

TO_TRAIN = ("train", "trainval")
TO_TEST = ("test", "val", "valid")
"""What torchvision calls the parts, the likeliest first."""


def read_torchvision(name: str, folder: Path, size: int) -> SourceImages:
    """Read a data set of torchvision, which downloads and verifies what is not there.

    Args:
        name: of its class in `torchvision.datasets`.
        folder: of its files.
        size: of the squares that are cut from the middle of images, whose shorter side is scaled to it.

    Raises:
        EastError: there is no such class, its parts cannot be had, or they hold something else than labelled images.
    """
    require_torchvision()
    import torchvision.datasets

    make = getattr(torchvision.datasets, name, None)
    if name not in torchvision.datasets.__all__ or make is None:
        raise EastError(f"torchvision {torchvision.__version__} has no data set '{name}'; see its documentation.")
    train, test = (_part(make, folder, names, is_train=names is TO_TRAIN) for names in (TO_TRAIN, TO_TEST))
    return SourceImages(*_images(train, name, size), *_images(test, name, size), ())


def _part(make: Any, folder: Path, names: tuple[str, ...], *, is_train: bool) -> Any:
    """The images to train on, or to test on."""
    accepted = inspect.signature(make).parameters
    options: dict[str, Any] = {"download": True} if "download" in accepted else {}
    tried: list[dict[str, Any]] = [{"split": name} for name in names]
    if "train" in accepted:
        tried = [{"train": is_train}]
    elif "split" not in accepted:
        raise EastError(
            f"torchvision's {make.__name__} does not say which of its images are trained on. Unpack it, and read it as "
            "an image_folder."
        )
    refused: Exception | None = None
    for part in tried:
        try:
            return make(folder, **part, **options)
        except ValueError as error:  # it has no part of this name
            refused = error
        except (OSError, RuntimeError, ImportError, HTTPException) as error:
            raise EastError(
                f"torchvision cannot read {make.__name__} in {folder} ({error}). Where there is no network, put its "
                "files there."
            ) from error
    raise EastError(f"torchvision's {make.__name__} has no part called {' or '.join(names)} ({refused}).")


def _images(part: Any, name: str, size: int) -> tuple[Tensor, Tensor]:
    from east.data.decoded import squared

    pixels, labels = torch.empty(len(part), 3, size, size, dtype=torch.uint8), torch.empty(len(part), dtype=torch.int64)
    for place in range(len(part)):
        shown, label = part[place]
        if not isinstance(shown, Image.Image) or not isinstance(label, SupportsInt):
            found = f"{type(shown).__name__} and {type(label).__name__}"
            raise EastError(f"torchvision's {name} gives {found}, and not an image and its class.")
        pixels[place], labels[place] = squared(shown.convert("RGB"), size), int(label)
    return pixels, labels
