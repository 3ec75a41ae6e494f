"""Folders of images decoded once: squares of one size, in the order of a listing."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as vision

from east.config.run import ImagesSpec
from east.data.catalog import info_of
from east.data.folder import CenterView, read_image
from east.data.listing import FolderLayout, Sample, layout_of, list_parts
from east.data.manifest import SourceFile
from east.data.source import SourceImages
from east.data.statistics import channel_counts, statistics_of_counts
from east.errors import EastError
from east.files import read_regular, sha256_of

THREADS = 4
"""That decode at once; which ones decode what decides nothing."""
AT_ONCE = 256
"""Images that are decoded before they are put in their place."""

TINY_IMAGENET = "tiny-imagenet-200"
IMAGENETTE = ("imagenette2", "imagenette2-160", "imagenette2-320")


def squared(image: Image.Image, size: int) -> Tensor:
    """The square in the middle of a color image whose shorter side is scaled to a size: uint8 [3, size, size]."""
    if image.size != (size, size):
        image = vision.center_crop(vision.resize(image, [size]), [size, size])
    pixels: Tensor = vision.pil_to_tensor(image)
    return pixels


def decoded(paths: Sequence[str], size: int) -> Tensor:
    """Images of files, as `squared` has them: uint8 [N, 3, size, size].

    Raises:
        EastError: one cannot be decoded.
    """
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    place = 0
    for pixels in _shown(paths, lambda image: squared(image, size)):
        images[place : place + len(pixels)] = pixels
        place += len(pixels)
    return images


def _shown(paths: Sequence[str], view: Callable[[Image.Image], Tensor]) -> Iterator[Tensor]:
    """Images of files in their order, some at once, so that there is never a second copy of all."""
    with ThreadPoolExecutor(THREADS) as threads:
        for first in range(0, len(paths), AT_ONCE):
            some = paths[first : first + AT_ONCE]
            yield torch.stack(list(threads.map(lambda path: view(read_image(Path(path))), some)))


def read_image_folder(folder: Path, layout: FolderLayout, size: int) -> SourceImages:
    """Read a folder of images with a folder for each class; arguments as of the data set `image_folder`.

    Raises:
        EastError: it is not one, or an image cannot be decoded.
    """
    train, test = list_parts(folder, layout)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise EastError(
            f"{folder}: {layout.train}/ and {layout.test}/ must have the same classes, but '{odd[0]}' is in only one."
        )
    names = "".join(
        f"{role}/{Path(path).parent.name}/{Path(path).name}\t{length}\n"
        for role, part in (("train", train), ("test", test))
        for (path, _), length in zip(part.samples, part.sizes, strict=True)
    )
    sources = (SourceFile(name="names and sizes of all images", sha256=sha256_of(names.encode())),)
    return SourceImages(*_read(train.samples, size), *_read(test.samples, size), sources, tuple(train.classes))


def statistics_of_folder(images: ImagesSpec, folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels of a folder's training images, as they are shown to evaluate."""
    train, _ = list_parts(folder, layout_of(images))
    view = CenterView(info_of(images).image_shape[1])
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for pixels in _shown([path for path, _ in train.samples], lambda image: view(image, 0, 0)):
        counts += channel_counts(pixels)
    return statistics_of_counts(counts)


def read_tiny_imagenet(folder: Path, size: int) -> SourceImages:
    """Read Tiny ImageNet: its training images, and its validation images to test on.

    Raises:
        EastError: it is not there, or not whole.
    """
    root = next((place for place in (folder, folder / TINY_IMAGENET) if (place / "wnids.txt").is_file()), None)
    if root is None:
        raise EastError(
            f"{folder} holds no {TINY_IMAGENET}. Unpack {TINY_IMAGENET}.zip there, or name its folder in "
            "datasets.tiny_imagenet.folder."
        )
    classes = sorted(_lines(root / "wnids.txt"))
    train = [
        (str(path), label)
        for label, name in enumerate(classes)
        for path in sorted((root / "train" / name / "images").glob("*.JPEG"))
    ]
    rows = [line.split("\t") for line in _lines(root / "val" / "val_annotations.txt")]
    label_of = {name: label for label, name in enumerate(classes)}
    if wrong := next((row for row in rows if len(row) < 2 or row[1] not in label_of), None):
        raise EastError(f"{root / 'val' / 'val_annotations.txt'} has the line {wrong}, with none of its classes.")
    test = [(str(root / "val" / "images" / row[0]), label_of[row[1]]) for row in sorted(rows)]
    return SourceImages(*_read(train, size), *_read(test, size), (), tuple(classes))


def read_imagenette(folder: Path, size: int) -> SourceImages:
    """Read Imagenette.

    Raises:
        EastError: it is not there.
    """
    places = (folder, *(folder / name for name in IMAGENETTE))
    root = next((place for place in places if (place / "train").is_dir()), None)
    if root is None:
        raise EastError(
            f"{folder} holds no train/ and val/, and none of {', '.join(IMAGENETTE)}. Unpack one of these archives "
            "there, or name its folder in datasets.imagenette.folder."
        )
    return read_image_folder(root, FolderLayout(), size)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in read_regular(path).decode().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise EastError(f"{path} cannot be read: {error}. Unpack the archive again.") from error


def _read(samples: Sequence[Sample], size: int) -> tuple[Tensor, Tensor]:
    return decoded([path for path, _ in samples], size), torch.tensor([label for _, label in samples])
