"""Lists a folder of images, `train/` and `val/` with a folder a class each, and refuses one that is not whole."""

import hashlib
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from east.data.catalog import DATASETS, DatasetInfo
from east.data.manifest import FolderManifest
from east.errors import EastError

PARTS = ("train", "val")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""How names of images end, in lower case; files with other names are passed over."""

Sample = tuple[str, int]
"""Path and label of an image."""


class Listing(NamedTuple):
    """The images of one part.

    Attributes:
        classes: their names, sorted; a class is labelled by its place.
        samples: of one class after the other, in each by name.
        sizes: of the files, in bytes, in the same order.
    """

    classes: list[str]
    samples: list[Sample]
    sizes: list[int]


def list_images(folder: Path, part: str) -> Listing:
    """The classes and images of `folder/part`.

    `folder` and `folder/part` may be links. Below them a link may stand for an image in the same part, and for nothing
    else: what lies elsewhere may be another class's, or change when nobody thinks of this folder.

    Raises:
        EastError: the part is missing, or has no classes, or a class has no images; or it holds what is none.
    """
    root = folder / part
    if not root.is_dir():
        raise EastError(
            f"{root} is missing: the ImageNet folder must hold train/ and val/, each with a sub-folder per class."
        )
    place = _other_part_apart(folder, part)
    found = Listing([], [], [])
    for entry in _sorted(root):
        if entry.is_symlink() and not os.path.isfile(entry.path):  # noqa: PTH113
            raise EastError(f"{root} holds a link, {entry.name!a}. Put the folder of the class itself there.")
        if not entry.is_dir():
            continue
        label, before = len(found.classes), len(found.samples)
        found.classes.append(_readable(entry))
        for image in _sorted(Path(entry.path)):
            if (size := _size_of_image(image, place, folder)) is not None:
                found.samples.append((image.path, label))
                found.sizes.append(size)
        if len(found.samples) == before:
            raise EastError(f"{root} must hold a sub-folder of images per class, but {entry.path} has no images.")
    if not found.classes:
        raise EastError(f"{root} must hold a sub-folder of images per class, but it has no sub-folders.")
    return found


def describe_folder(dataset: str, folder: Path, train: Listing, val: Listing) -> FolderManifest:
    """Describe an image folder: its classes, counts, and a digest of all relative file names and sizes.

    Args:
        dataset: a key of `DATASETS`, which says how many classes and images to expect.
        folder: the folder that holds `train/` and `val/`.
        train: what is in the one.
        val: what is in the other.

    Raises:
        EastError: the folder does not have the data set's classes and images.
    """
    info = DATASETS[dataset]
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise EastError(
            f"{folder}: train/ and val/ must have the same classes, but {len(odd)} are in only one of them, "
            f"for example '{odd[0]}'."
        )
    if len(train.classes) != info.num_classes:
        raise EastError(
            f"{folder} has {len(train.classes)} classes, but {info.label} has {info.num_classes}. Unpack all of it. "
            f"A subset, such as ImageNet-100, is another data set: it would need an entry of its own, with its classes "
            "and numbers of images, in east/data/catalog.py and wherever the code names 'imagenet'."
        )
    digest = hashlib.sha256()
    counts = []
    for part, listing in zip(PARTS, (train, val), strict=True):
        counts.append(_checked_counts(info, folder / part, part == "train", listing))
        for (path, label), size in zip(listing.samples, listing.sizes, strict=True):
            if not size:
                raise EastError(f"{path} is empty. Unpack it again.")
            digest.update(f"{part}/{listing.classes[label]}/{os.path.basename(path)}\t{size}\n".encode())  # noqa: PTH119
    return FolderManifest(
        dataset=dataset,
        num_classes=info.num_classes,
        classes=tuple(train.classes),
        train_counts=counts[0],
        val_counts=counts[1],
        mean=info.mean or (),
        std=info.std or (),
        digest=digest.hexdigest(),
    )


def scan_folder(dataset: str, folder: Path) -> FolderManifest:
    """List and describe an image folder; see `list_images` and `describe_folder`."""
    return describe_folder(dataset, folder, *(list_images(folder, part) for part in PARTS))


def _sorted(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise EastError(f"{folder} cannot be listed: {error.strerror}.") from error


def _other_part_apart(folder: Path, part: str) -> str:
    """Where a part really is, which must not be where another one is."""
    place, *others = (os.path.realpath(folder / name) for name in (part, *(name for name in PARTS if name != part)))
    for other in others:
        if os.path.commonpath([place, other]) in (place, other):
            raise EastError(
                f"{folder / part} and the other part of {folder} are one folder, or one is within the other: images "
                "would be trained on and tested on. Give each its own folder."
            )
    return place


def _readable(entry: os.DirEntry[str]) -> str:
    """The name of an entry.

    Raises:
        EastError: it cannot be written in every file and on every terminal.
    """
    if not entry.name.isprintable():
        raise EastError(
            f"the name {entry.name!a} in {os.path.dirname(entry.path)} "  # noqa: PTH120
            "is not UTF-8, or has characters that cannot be shown. Rename it, or unpack the archive again."
        )
    return entry.name


def _size_of_image(entry: os.DirEntry[str], place: str, folder: Path) -> int | None:
    """Bytes of an image in the folder of a class; None where the entry is a file that has no image's name.

    Args:
        entry: of the folder of a class.
        place: where the part really is.
        folder: that holds the parts, for the message.

    Raises:
        EastError: it is not an ordinary file, or a link out of the part.
    """
    # What a link leads to is looked at, and what is none is known from the listing.
    if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112
        raise EastError(
            f"{os.path.dirname(entry.path)} is the folder of a class and holds images only, "  # noqa: PTH120
            f"but there is a folder, or a link to one, in it: {entry.name!a}. Move it away."
        )
    if not entry.name.lower().endswith(IMAGE_SUFFIXES):
        return None
    name = _readable(entry)
    if name.startswith("."):
        mend = (
            f"Remove them: find {shlex.quote(str(folder))}/ -name '._*' -type f -delete"
            if name.startswith("._")
            else "Remove it."
        )
        raise EastError(
            f"{entry.path} is a hidden file, as macOS makes beside those that it copies, and no image of the data set. "
            f"Such files must not be there. {mend}"
        )
    if entry.is_symlink():
        try:
            target = os.path.realpath(entry.path, strict=True)
        except OSError as error:
            raise EastError(f"{entry.path} is a link that leads nowhere ({error.strerror}). Unpack it again.") from None
        if not target.startswith(f"{place}{os.sep}"):
            raise EastError(f"{entry.path} is a link out of its folder, to {target}. Put the image itself there.")
    try:
        found = entry.stat()
    except OSError as error:
        raise EastError(f"{entry.path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise EastError(f"{entry.path} is not an ordinary file. Unpack it again.")
    return found.st_size


def _checked_counts(info: DatasetInfo, root: Path, is_train: bool, listing: Listing) -> tuple[int, ...]:
    """Images of each class.

    Raises:
        EastError: there are more or fewer than the data set has.
    """
    counted = Counter(label for _, label in listing.samples)
    counts = tuple(counted[label] for label in range(len(listing.classes)))
    total, wanted = sum(counts), info.train_images if is_train else info.test_images
    fewest, most = (info.train_per_class if is_train else info.test_per_class) or (1, wanted)
    odd = [label for label, count in enumerate(counts) if not fewest <= count <= most]
    if total == wanted and not odd:
        return counts
    example = ""
    if odd:
        right = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        example = (
            f" {len(odd)} classes are not whole or hold too much, for example '{listing.classes[odd[0]]}' with "
            f"{counts[odd[0]]}, not {right}."
        )
    raise EastError(
        f"{root} has {total:,} images, but {info.label} has {wanted:,}.{example} Unpack all of it, and nothing else "
        "beside it."
    )
