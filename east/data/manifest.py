"""What `prepare` records of a data set: the checksums and facts that every later reader verifies."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from east.config.run import Frozen, ImagesSpec
from east.data.catalog import info_of, of_name
from east.errors import EastError
from east.files import about, open_regular, parse_json, read_regular, write_atomically

MANIFEST_FILE = "manifest.json"
TENSOR_FILE = "images.safetensors"
SCHEMA: Final = 2
"""Raised by hand when the layout, or the way an image is made from its source, changes: old files are rebuilt."""


class SourceFile(Frozen):
    """A file that the images were read from, with the checksums that it was verified by."""

    name: str
    md5: str | None = None
    sha256: str | None = None


def md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal: the checksum that the CIFAR archives are published with."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class ImagesManifest(Frozen):
    """The record of a data set kept as one tensor file.

    Attributes:
        source: what read it; None for the project's own data set of this name with its defaults.
        classes: their names in the order of their labels, where the source has them.
        digest: of everything that its batches are made from (`east.data.images.dataset_digest`).
    """

    schema_version: Literal[2] = SCHEMA
    dataset: str
    source: str | dict[str, Any] | None = None
    digest: str
    shapes: dict[str, tuple[int, ...]]
    num_classes: int
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sources: tuple[SourceFile, ...]


class FolderManifest(Frozen):
    """The record of a data set that stays a folder of images.

    Attributes:
        source: as for images in one file.
        classes: class names in the order of their labels.
        train_counts: training images of each class, in the same order.
        val_counts: the same for `val/`.
        digest: SHA-256 over the relative names and sizes of all images.
    """

    schema_version: Literal[2] = SCHEMA
    dataset: str
    source: str | dict[str, Any] | None = None
    num_classes: int
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str


M = TypeVar("M", ImagesManifest, FolderManifest)

CHECKSUM = "checksum"
"""The key of a manifest that says whether its other keys are as they were written."""

MOST_BYTES = 2**24
"""More than a manifest has."""


def write_manifest(home: Path, manifest: ImagesManifest | FolderManifest) -> None:
    """Write the manifest of a data set into its folder."""
    facts = manifest.model_dump(mode="json", exclude_none=True)
    write_atomically(home / MANIFEST_FILE, json.dumps(facts | {CHECKSUM: _checksum(facts)}, indent=2) + "\n")


def again(images: ImagesSpec | str, data_dir: Path) -> str:
    """How a prepared data set is made again, for people."""
    return f"{preparing(images, f' --data-dir {shlex.quote(str(data_dir))}')} prepares it again."


def preparing(images: ImagesSpec | str, options: str = "") -> str:
    """What prepares a data set, for people."""
    images = of_name(images)
    command = f"`east prepare {images.name}{options}`"
    return command if images.store == images.name else f"{command} with the --configfile that describes it"


def read_manifest(kind: type[M], images: ImagesSpec | str, data_dir: Path) -> M:
    """The manifest of a prepared data set.

    Raises:
        EastError: it is missing, damaged, from another version, or another data set's.
    """
    images = of_name(images)
    path = data_dir / images.store / MANIFEST_FILE
    fix = again(images, data_dir)
    try:
        with about(path):
            facts = parse_json(read_regular(path, at_most=MOST_BYTES))
        # Manifests of earlier versions have none. Any other key than it is refused, so a bit that flips in it is seen.
        checksum = facts.pop(CHECKSUM, None)
        manifest = kind.model_validate_json(json.dumps(facts))
    except FileNotFoundError:
        raise EastError(f"{info_of(images).label} is not prepared: {path} does not exist. {fix}") from None
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}. {fix}") from error
    except ValueError:
        raise EastError(f"{path} is damaged or was written by another version. {fix}") from None
    if manifest.dataset != images.name:
        raise EastError(f"{path} describes the data set '{manifest.dataset}', not '{images.name}'. {fix}")
    if manifest.source != images.model_dump(mode="json").get("source"):
        raise EastError(f"{path} describes images of another source, or with other parameters. {fix}")
    if checksum not in (None, _checksum(facts)):
        raise EastError(f"{path} is damaged: its {CHECKSUM} is not that of its other keys. {fix}")
    return manifest


def _checksum(facts: dict[str, object]) -> str:
    """The first 16 hex digits of a SHA-256 of a manifest's keys and values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
