"""Checks of data sets: prepared and intact, or to be had."""

import math
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from east.data.catalog import DATASETS
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, FolderManifest, ImagesManifest, md5, read_manifest
from east.errors import EastError
from east.operations.doctor.finding import Finding
from east.operations.doctor.surroundings import Surroundings

ITEM_BYTES = {"images": 1, "labels": 8}
"""Bytes of a number, by the end of a tensor's name."""

STOPS = "Every run on it would stop when it opens its data."
GZIP = b"\x1f\x8b"


def datasets(here: Surroundings) -> Iterator[Finding]:
    """Every data set of the plan."""
    for name in here.plan.datasets():
        if name == "imagenet":
            yield _image_folder(here, name)
        elif (here.data / name / MANIFEST_FILE).is_file():
            yield _prepared(here, name)
        elif name.startswith("cifar"):
            yield _raw(here, name)
        else:
            yield Finding("ok", f"{DATASETS[name].label}: will be made from scikit-learn's digits")


def _prepared(here: Surroundings, name: str) -> Finding:
    """The tensor file is what its manifest says: by its size, or, if that is asked for, by its checksum."""
    label, file = DATASETS[name].label, here.data / name / TENSOR_FILE
    shown = here.shown(file)
    try:
        manifest = read_manifest(ImagesManifest, name, here.data)
        if not file.is_file():
            problem = f"{shown} is missing though its manifest is there"
        elif file.stat().st_size != (expected := _expected_size(file, manifest)):
            problem = f"{shown} has {file.stat().st_size:,} bytes, not {expected:,}"
        else:
            checked = "checksum" if here.thorough and _is_verified(name, here.data) else "size"
            return Finding("ok", f"{label}: prepared, {checked} right")
    except EastError as error:
        problem = _cause(here, error)
    return Finding("error", f"{label}: {problem}", STOPS, _prepare(here, name))


def _is_verified(name: str, data_dir: Path) -> bool:
    """Verify the images by their digest; False where that cannot be done, because PyTorch cannot be imported.

    Raises:
        EastError: they are not what they should be.
    """
    try:
        from east.data.images import load_images
    except (ImportError, OSError):  # what is wrong with PyTorch is another finding
        return False
    load_images(name, data_dir)
    return True


def _raw(here: Surroundings, name: str) -> Finding:
    """CIFAR that is not prepared: its archive is there, or must be downloaded."""
    label = DATASETS[name].label
    archives = here.ask.probe("torchvision").get("archives")
    if archives is None:
        return Finding("note", f"{label}: not prepared; its archive cannot be looked at without torchvision")
    archive = archives[name]
    file = here.data / "raw" / archive["file"]
    shown = here.shown(file)
    if not file.is_file():
        host = urlsplit(archive["url"]).hostname
        return Finding(
            "note",
            f"{label}: to be downloaded from {host}, to {shown}",
            why="That needs network where the job runs. A node without it finds the file if you put it there.",
            mend=_prepare(here, name),
        )
    with file.open("rb") as stream:
        whole = stream.read(len(GZIP)) == GZIP
    if whole and here.thorough:
        whole = md5(file) == archive["md5"]
    if not whole:
        return Finding(
            "error",
            f"{label}: {shown} is damaged or incomplete",
            why="It would be refused when the data are prepared; a file that is there is never replaced.",
            mend=f"rm {shown} && {_prepare(here, name)}",
        )
    return Finding(
        "ok", f"{label}: its archive is there{', checksum right' if here.thorough else ''}; not yet prepared"
    )


def _image_folder(here: Surroundings, name: str) -> Finding:
    """ImageNet's folder has its classes, those of the manifest, and if that is asked for the same images."""
    label, folder = DATASETS[name].label, here.image_folder
    if folder is None:
        return Finding(
            "error",
            f"{label}: no image folder is named",
            why="It cannot be downloaded, and runs of this plan need it.",
            mend="Set datasets.imagenet.folder to the folder that holds its train/ and val/.",
        )
    problem = _wrong_classes(name, folder)
    if not problem and (here.data / name / MANIFEST_FILE).is_file():
        problem = _differs(here, name, folder)
    if not problem:
        return Finding("ok", f"{label}: {folder} has its classes in train/ and val/")
    return Finding(
        "error",
        f"{label}: {problem}",
        STOPS,
        mend=f"ls {folder}; when it is whole, {_prepare(here, name)} --image-folder {folder}",
    )


def _wrong_classes(name: str, folder: Path) -> str:
    wanted = DATASETS[name].num_classes
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            return f"{folder / part} is missing"
        found = sum(entry.is_dir() for entry in (folder / part).iterdir())
        if found != wanted:
            return f"{folder / part} has {found:,} classes, not {wanted:,}"
    return ""


def _differs(here: Surroundings, name: str, folder: Path) -> str:
    """What sets an image folder apart from the one that was prepared; empty if nothing does."""
    try:
        manifest = read_manifest(FolderManifest, name, here.data)
    except EastError as error:
        return _cause(here, error)
    if sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir()) != list(manifest.classes):
        return f"{folder} has other classes than when it was prepared"
    if not here.thorough:
        return ""
    facts = here.ask.probe("image_folder", name, str(folder))
    if problem := facts.get("wrong") or facts.get("problem"):
        return str(problem)
    return "" if facts["digest"] == manifest.digest else f"{folder} has changed since it was prepared"


def _cause(here: Surroundings, error: EastError) -> str:
    """The first sentence of an error, with paths as people would write them here; the second is about mending."""
    return str(error).split(". ")[0].replace(f"{here.folder}/", "")


def _expected_size(file: Path, manifest: ImagesManifest) -> int:
    """The size of a tensor file: eight bytes that tell the length of the header, the header, the tensors."""
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    tensors = sum(ITEM_BYTES[tensor.rpartition("_")[2]] * math.prod(shape) for tensor, shape in manifest.shapes.items())
    return 8 + header + tensors


def _prepare(here: Surroundings, name: str) -> str:
    return f"east prepare {name} --data-dir {here.plan.config.execution.data_dir}"
