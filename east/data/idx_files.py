"""The four files of Fashion-MNIST and MNIST: where they may lie, packed or not, and what they are recognised by."""

import gzip
import io
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from east.data.checksums import FILE_BYTES
from east.errors import EastError
from east.files import AtMost, read_regular, sha256_of

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Images and labels to train on, then to test on; with `.gz` at the end where they are packed."""


@dataclass(frozen=True)
class IdxSet:
    """A data set of four files.

    Attributes:
        archive: its class in torchvision, which names its folder and knows where its packed files are to be had.
        sha256: name of a file -> of its unpacked bytes; packed ones differ with whoever packed them.
        places: folders of installed packages that have it.
    """

    archive: str
    sha256: Mapping[str, str]
    places: tuple[Path, ...] = ()


FASHION = IdxSet(
    "FashionMNIST",
    dict(
        zip(
            FILES,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            strict=True,
        )
    ),
    (Path("/usr/share/datasets/fashion-mnist"),),
)
"""Debian and its descendants have it as the package `dataset-fashion-mnist`."""

MNIST = IdxSet(
    "MNIST",
    dict(
        zip(
            FILES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            strict=True,
        )
    ),
)


SIDE = 28
"""Height and width of their images."""

IDX_SETS = {"fashion_mnist": FASHION, "mnist": MNIST}
"""Those of the project, by the names of their data sets."""


def found_files(published: IdxSet, folder: Path) -> dict[str, Path]:
    """Name -> where a file of the data set is; without those that are nowhere.

    Unpacked ones come first, and the user's before those of installed packages.
    """
    found: dict[str, Path] = {}
    for place in (folder, folder / published.archive / "raw", *published.places):
        for name in published.sha256:
            for path in (place / name, place / f"{name}.gz"):
                if name not in found and os.path.lexists(path):
                    found[name] = path
    return found


def verified_content(path: Path, sha256: str) -> bytes:
    """The unpacked content of a file.

    Raises:
        EastError: it cannot be read, or has another checksum.
    """
    fix = "Delete it to have it downloaded, or replace it with a complete copy."
    try:
        content = read_regular(path, at_most=FILE_BYTES)
        if path.suffix == ".gz":
            content = AtMost(gzip.GzipFile(fileobj=io.BytesIO(content)), FILE_BYTES).read()
    except (OSError, EOFError, zlib.error) as error:
        raise EastError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. {fix}") from error
    if (found := sha256_of(content)) != sha256:
        what = "what is packed in it has" if path.suffix == ".gz" else "it has"
        raise EastError(f"{path} is damaged or another file: {what} the sha256 {found}, not {sha256}. {fix}")
    return content
