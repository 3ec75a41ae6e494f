"""What `prepare` records of a data set: the checksums and facts that every later reader verifies."""

import hashlib
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import ValidationError

from east.config.run import Frozen
from east.data.catalog import DATASETS
from east.errors import EastError
from east.files import about

MANIFEST_FILE = "manifest.json"
TENSOR_FILE = "images.safetensors"
SCHEMA: Final = 2
"""Raised by hand when the layout, or the way an image is made from its source, changes: old files are rebuilt."""


class SourceFile(Frozen):
    """A file that the images were read from."""

    name: str
    md5: str


def md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal: the checksum that the CIFAR archives are published with."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class ImagesManifest(Frozen):
    """The record of a data set kept as one tensor file.

    Attributes:
        digest: of everything that its batches are made from (`east.data.images.dataset_digest`).
    """

    schema_version: Literal[2] = SCHEMA
    dataset: str
    digest: str
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sources: tuple[SourceFile, ...]


class FolderManifest(Frozen):
    """The record of a data set that stays a folder of images.

    Attributes:
        classes: class names in the order of their labels.
        train_counts: training images of each class, in the same order.
        val_counts: the same for `val/`.
        digest: SHA-256 over the relative names and sizes of all images.
    """

    schema_version: Literal[2] = SCHEMA
    dataset: str
    num_classes: int
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str


M = TypeVar("M", ImagesManifest, FolderManifest)


def read_manifest(kind: type[M], dataset: str, data_dir: Path) -> M:
    """The manifest of a prepared data set.

    Raises:
        EastError: it is missing, damaged, from another version, or another data set's.
    """
    path = data_dir / dataset / MANIFEST_FILE
    fix = f"Prepare {DATASETS[dataset].label} again with `snakemake --cores 1 data`."
    try:
        with about(path):
            manifest = kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise EastError(f"{DATASETS[dataset].label} is not prepared: {path} does not exist. {fix}") from None
    except ValidationError:
        raise EastError(f"{path} is damaged or was written by another version. {fix}") from None
    if manifest.dataset != dataset:
        raise EastError(f"{path} describes the data set '{manifest.dataset}', not '{dataset}'. {fix}")
    return manifest
