"""Writes a data set to disk once, whole, with the checksums that every later reader verifies."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from safetensors.torch import save

from east.config.choices import bound
from east.config.run import ImagesSpec
from east.data.catalog import info_of, is_streamed, of_name
from east.data.images import dataset_digest, load_images, refuse_others, wrong_images
from east.data.kind import DatasetFacts, dataset
from east.data.listing import alike, scan_folder
from east.data.manifest import (
    MANIFEST_FILE,
    TENSOR_FILE,
    FolderManifest,
    ImagesManifest,
    read_manifest,
    write_manifest,
)
from east.data.source import SourceImages, as_source
from east.data.statistics import channel_statistics
from east.errors import EastError
from east.files import write_atomically
from east.locks import locked
from east.plugins import blamed, load_needed


def prepare(
    images: ImagesSpec | str, data_dir: Path, *, folder: Path | None = None, plugins: Sequence[Path] = ()
) -> Path:
    """Make a data set ready for training, unless manifest and data agree already; return the path of its manifest.

    Several jobs may call this at once: one does the work, the others wait.

    Args:
        images: which they are, or the name of one of the project's own.
        data_dir: where data sets are stored; downloads go to its sub-folder `raw`.
        folder: that holds its files, or its images; None for the folder of downloads.
        plugins: where a plugin that reads them may be; it is executed only if there is something to write.

    Raises:
        EastError: the name is unknown, or the raw data are missing or damaged.
    """
    images = of_name(images)
    if is_streamed(images):
        return store_folder(images, data_dir, folder)
    return store_images(images, data_dir, partial(_read, images, folder, data_dir / "raw", plugins))


def store_images(images: ImagesSpec | str, data_dir: Path, read: Callable[[], SourceImages]) -> Path:
    """Write the tensor file and then the manifest of a data set, unless both exist and agree.

    Args:
        images: which they are, or the name of one of the project's own.
        data_dir: where data sets are stored.
        read: reads the source; called only if there is something to write.
    """
    images = of_name(images)
    home = data_dir / images.store
    return _store(home, lambda: bool(load_images(images, data_dir)), lambda: _write_images(images, home, read()))


def store_folder(images: ImagesSpec | str, data_dir: Path, folder: Path | None) -> Path:
    """Write the manifest of an image folder, whose images stay where they are.

    Raises:
        EastError: no folder is given, or it does not hold the data set's classes.
    """
    images = of_name(images)
    label, name = info_of(images).label, images.name
    if folder is None:
        raise EastError(
            f"{label} cannot be downloaded. Name the folder that holds its train/ and val/ in "
            f"datasets.{name}.folder or with {'--image-folder' if name == 'imagenet' else '--folder'}."
        )
    home = data_dir / images.store
    manifest = scan_folder(images, folder)

    def agrees() -> bool:
        return alike(manifest, read_manifest(FolderManifest, images, data_dir))

    def write() -> None:
        mean, std = manifest.mean, manifest.std
        if not mean:
            # The listing says which images they are, and only their pixels what their mean is.
            from east.data.decoded import statistics_of_folder

            mean, std = statistics_of_folder(images, folder)
        write_manifest(home, manifest.model_copy(update={"mean": mean, "std": std}))

    return _store(home, agrees, write)


def _read(images: ImagesSpec, folder: Path | None, downloads: Path, plugins: Sequence[Path]) -> SourceImages:
    """What a data set's reader finds in its folder, or in that of downloads.

    Raises:
        EastError: the folder or what is in it are not as they should be, or a plugin gave something else than images.
    """
    load_needed(images.plugins, plugins)
    entry, read = bound(dataset, images.reader)
    facts: DatasetFacts = entry.facts
    if folder is None and facts.reads == "folder":
        where = f"datasets.{images.name}.folder or with --folder"
        raise EastError(f"nothing says where the images of {images.name} are. Name their folder in {where}.")
    if folder is not None and not folder.is_dir():
        raise EastError(f"there is no folder {folder}. Name that of the files in datasets.{images.name}.folder.")
    if facts.reads == "files":
        downloads.mkdir(parents=True, exist_ok=True)
    with blamed(entry, "when it read its images"):
        found = read(folder or downloads)
    _, height, width = info_of(images).image_shape
    try:
        return as_source(found, (height, width))
    except ValueError as error:
        raise EastError(f"{entry.place}: {entry.title}: {error}. It must give {entry.kind.gives}.") from None


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


def _write_images(images: ImagesSpec, home: Path, source: SourceImages) -> None:
    info = info_of(images)
    tensors = source.tensors()
    if problem := wrong_images(images, tensors):
        raise EastError(f"{info.label} cannot be prepared: {problem}.")
    mean, std = channel_statistics(source.train_images)
    mean, std = info.mean or mean, info.std or std
    if min(std) <= 0:
        raise EastError(f"{info.label} cannot be prepared: a channel of its training images has one value throughout.")
    digest = dataset_digest(tensors, mean=mean, std=std, num_classes=info.num_classes)
    refuse_others(
        images, digest, "", "Install the locked packages with `make setup`: the data set is made from one of them."
    )
    # A manifest must never stand beside a tensor file that it does not describe, not even between two renames.
    (home / MANIFEST_FILE).unlink(missing_ok=True)
    write_atomically(home / TENSOR_FILE, save(tensors))
    manifest = ImagesManifest(
        dataset=images.name,
        source=images.model_dump(mode="json").get("source"),
        digest=digest,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        num_classes=info.num_classes,
        classes=source.classes,
        mean=mean,
        std=std,
        sources=source.sources,
    )
    write_manifest(home, manifest)
