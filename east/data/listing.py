"""Lists a folder of images, `train/` and `val/` with a folder a class each, and refuses one that is not whole."""

import hashlib
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from east.config.choices import named
from east.config.run import ImagesSpec
from east.data.catalog import DatasetInfo, info_of, of_name
from east.data.manifest import FolderManifest
from east.errors import EastError

PARTS = ("train", "val")
SPLIT_SEED = 0
"""Seed of the split of a folder without parts, which belongs to the data, not to a run."""

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


class FolderLayout(NamedTuple):
    """Where in a folder images to train on and to test on are.

    Attributes:
        train: folder of the ones.
        test: folder of the others.
        test_share: share of each class that is tested on, where classes lie in the folder itself; 0 where parts do.
    """

    train: str = PARTS[0]
    test: str = PARTS[1]
    test_share: float = 0.0

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders that hold classes; the empty one is the folder itself."""
        return ("",) if self.test_share else (self.train, self.test)


def layout_of(images: ImagesSpec) -> FolderLayout:
    """Where the images of a folder are, as its data set says."""
    _, parameters, _ = named(images.reader)
    return layout_of_parameters(parameters)


def layout_of_parameters(parameters: Mapping[str, Any]) -> FolderLayout:
    """The same from the parameters of the data set."""
    return FolderLayout(**{key: value for key, value in parameters.items() if key in FolderLayout._fields})


def list_images(folder: Path, part: str, parts: tuple[str, ...] = PARTS) -> Listing:
    """The classes and images of `folder/part`.

    `folder` and `folder/part` may be links. Below them a link may stand for an image in the same part, and for nothing
    else: what lies elsewhere may be another class's, or change when nobody thinks of this folder.

    Args:
        folder: that holds all parts.
        part: the one that is listed.
        parts: all of them.

    Raises:
        EastError: the part is missing, or has no classes, or a class has no images; or it holds what is none.
    """
    root = folder / part
    if not root.is_dir():
        what = f"{' and '.join(f'{name}/' for name in parts)}, each with" if part else "the classes:"
        raise EastError(f"{root} is missing: the image folder must hold {what} a sub-folder per class.")
    place = _other_part_apart(folder, part, parts)
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


def list_parts(folder: Path, layout: FolderLayout) -> tuple[Listing, Listing]:
    """What of a folder is trained on, and what is tested on.

    Raises:
        EastError: see `list_images`; or a class has too few images to be divided.
    """
    listed = [list_images(folder, part, layout.parts) for part in layout.parts]
    return divided(listed[0], layout.test_share) if layout.test_share else (listed[0], listed[1])


def divided(listing: Listing, share: float) -> tuple[Listing, Listing]:
    """The images to train on and to test on: of each class a share, rounded, at least one; always the same ones.

    Raises:
        EastError: a class has a single image.
    """
    # NumPy and PyTorch are not needed to count.
    from east.seeding import generator

    counted = Counter(label for _, label in listing.samples)
    tested: set[int] = set()
    first = 0
    for label, name in enumerate(listing.classes):
        order = generator(SPLIT_SEED, "image_folder", "split", name).permutation(counted[label])
        tested |= {first + int(place) for place in order[: held_out(counted[label], share, name)]}
        first += counted[label]
    parts = []
    for is_test in (False, True):
        chosen = [place for place in range(len(listing.samples)) if (place in tested) == is_test]
        samples, sizes = [listing.samples[place] for place in chosen], [listing.sizes[place] for place in chosen]
        parts.append(Listing(listing.classes, samples, sizes))
    return parts[0], parts[1]


def held_out(count: int, share: float, name: str) -> int:
    """Of so many images of a class, how many are tested on.

    Raises:
        EastError: none would be left.
    """
    if count < 2:
        raise EastError(f"class '{name}' has a single image, which cannot be both trained on and tested on. Add some.")
    return min(max(1, int(Fraction(str(share)) * count + Fraction(1, 2))), count - 1)


class FolderCounts(NamedTuple):
    """How many classes and images a folder has."""

    classes: int
    train_images: int
    test_images: int


def count_images(folder: Path, layout: FolderLayout) -> FolderCounts:
    """How many classes and images a folder has; errors as for `list_parts`."""
    listed = [list_images(folder, part, layout.parts) for part in layout.parts]
    classes = len(listed[0].classes)
    if not layout.test_share:
        return FolderCounts(classes, *(len(part.samples) for part in listed))
    counted = Counter(label for _, label in listed[0].samples)
    tested = sum(held_out(counted[label], layout.test_share, name) for label, name in enumerate(listed[0].classes))
    return FolderCounts(classes, len(listed[0].samples) - tested, tested)


def describe_folder(images: ImagesSpec | str, folder: Path, train: Listing, val: Listing) -> FolderManifest:
    """Describe an image folder: its classes, counts, and a digest of all relative file names and sizes.

    Args:
        images: the data set, which says how many classes and images to expect.
        folder: the folder that holds its parts.
        train: what is in the one.
        val: what is in the other.

    Raises:
        EastError: the folder does not have the data set's classes and images.
    """
    images = of_name(images)
    info, layout = info_of(images), layout_of(images)
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise EastError(
            f"{folder}: {layout.train}/ and {layout.test}/ must have the same classes, but {len(odd)} are in only one "
            f"of them, for example '{odd[0]}'."
        )
    if len(train.classes) != info.num_classes:
        raise EastError(
            f"{folder} has {len(train.classes)} classes, but {info.label} has {info.num_classes}. Unpack all of it. "
            "A subset, such as ImageNet-100, is another data set: describe it in `datasets` under a name of its own, "
            "with `source: {name: image_folder, ...}`."
        )
    digest = hashlib.sha256()
    counts = []
    parts = layout.parts * 2 if layout.test_share else layout.parts
    for role, part, listing in zip(PARTS, parts, (train, val), strict=True):
        counts.append(_checked_counts(info, folder / part, listing is train, listing))
        for (path, label), size in zip(listing.samples, listing.sizes, strict=True):
            if not size:
                raise EastError(f"{path} is empty. Unpack it again.")
            # The name of the part is that of its role, so that a folder of other names is the same data set.
            digest.update(f"{role}/{listing.classes[label]}/{os.path.basename(path)}\t{size}\n".encode())  # noqa: PTH119
    return FolderManifest(
        dataset=images.name,
        source=images.model_dump(mode="json").get("source"),
        num_classes=info.num_classes,
        classes=tuple(train.classes),
        train_counts=counts[0],
        val_counts=counts[1],
        mean=info.mean or (),
        std=info.std or (),
        digest=digest.hexdigest(),
    )


def scan_folder(images: ImagesSpec | str, folder: Path) -> FolderManifest:
    """List and describe an image folder; see `list_parts` and `describe_folder`."""
    images = of_name(images)
    return describe_folder(images, folder, *list_parts(folder, layout_of(images)))


def alike(listed: FolderManifest, prepared: FolderManifest) -> bool:
    """Whether a folder is as it was when it was prepared; means that were computed then are not listed now."""
    if not listed.mean:
        listed = listed.model_copy(update={"mean": prepared.mean, "std": prepared.std})
    return listed == prepared


def _sorted(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise EastError(f"{folder} cannot be listed: {error.strerror}.") from error


def _other_part_apart(folder: Path, part: str, parts: tuple[str, ...]) -> str:
    """Where a part really is, which must not be where another one is."""
    place, *others = (os.path.realpath(folder / name) for name in (part, *(name for name in parts if name != part)))
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
