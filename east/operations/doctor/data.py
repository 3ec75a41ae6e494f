"""Checks of data sets: prepared and intact, or to be had."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from safetensors import SafetensorError, safe_open

from east.data.catalog import DATASETS
from east.data.checksums import SHA256, Checksums, verified
from east.data.listing import scan_folder
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, FolderManifest, ImagesManifest, read_manifest
from east.errors import EastError
from east.files import open_regular
from east.operations.doctor.surroundings import Finding, Surroundings

STOPS = "Every run on it would stop when it opens its data."


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
    """The tensor file is what its manifest says: by its size and shapes, or, if that is asked for, by its checksum."""
    label, file = DATASETS[name].label, here.data / name / TENSOR_FILE
    checked = "size"
    try:
        manifest = read_manifest(ImagesManifest, name, here.data)
        # The library refuses a file of another size than its tensors need.
        with open_regular(file), safe_open(file, framework="numpy") as tensors:
            shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        if shapes != manifest.shapes:
            raise EastError(f"{file} is not what its manifest says.")
        if here.thorough and here.has_torch:
            from east.data.images import load_images

            load_images(name, here.data)
            checked = "checksum"
    except FileNotFoundError:
        problem = f"{here.shown(file)} is missing though its manifest is there"
    except (SafetensorError, OSError) as error:
        problem = f"{here.shown(file)} is damaged: {error}"
    except EastError as error:
        problem = _cause(here, error)
    else:
        unread = "" if here.thorough else "; `--thorough` reads it for its checksum"
        return Finding("ok", f"{label}: prepared, {checked} right{unread}")
    return Finding("error", f"{label}: {problem}", STOPS, _prepare(here, name))


def _raw(here: Surroundings, name: str) -> Finding:
    """CIFAR that is not prepared: its archive is there, or what was unpacked of it, or it must be downloaded."""
    label = DATASETS[name].label
    archives = here.ask.probe("torchvision").get("archives")
    if archives is None:
        return Finding("note", f"{label}: not prepared; its archive cannot be looked at without torchvision")
    archive = archives[name]
    raw = here.data / "raw"
    file, unpacked = raw / archive["file"], raw / archive["folder"]
    if os.path.lexists(file):
        files = {file: Checksums(archive["md5"], SHA256[name])}
    elif unpacked.is_dir():
        files = {unpacked / member: Checksums(md5) for member, md5 in archive["members"].items()}
    else:
        host = urlsplit(archive["url"]).hostname
        why = "That needs network where the job runs. A node without it finds the file if you put it there."
        found = f"{label}: to be downloaded from {host}, to {here.shown(file)}"
        return Finding("note", found, why, _prepare(here, name))
    for path, checksums in files.items():
        try:
            verified(path, checksums)
        except EastError as error:
            why = "It would be refused when the data are prepared; a file that is there is never replaced."
            place = unpacked if path != file else file
            recursive = "-r " if place == unpacked or path.is_dir() else ""
            fix = f"rm {recursive}{shlex.quote(str(here.shown(place)))} && {_prepare(here, name)}"
            return Finding("error", f"{label}: {_cause(here, error)}", why, fix)
    return Finding(
        "ok",
        f"{label}: {'its archive' if file in files else here.shown(unpacked)} is whole, checksums right; "
        "not yet prepared",
    )


def _image_folder(here: Surroundings, name: str) -> Finding:
    """ImageNet's folder has its classes, those of the manifest, and if that is asked for the same images."""
    label, folder = DATASETS[name].label, here.image_folder
    if folder is None:
        why = "It cannot be downloaded, and runs of this plan need it."
        fix = "Set datasets.imagenet.folder to the folder that holds its train/ and val/."
        return Finding("error", f"{label}: no image folder is named", why, fix)
    try:
        problem = _wrong_folder(here, name, folder)
    except EastError as error:
        problem = _cause(here, error)
    if not problem:
        return Finding("ok", f"{label}: {folder} has its classes in train/ and val/")
    where = shlex.quote(str(folder))
    fix = f"{_prepare(here, name)} --image-folder {where}   # when all of it is there"
    return Finding("error", f"{label}: {problem}", STOPS, fix)


def _wrong_folder(here: Surroundings, name: str, folder: Path) -> str:
    """What sets an image folder apart from a whole one, or from the one that was prepared; empty if nothing does."""
    wanted, classes = DATASETS[name].num_classes, {}
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            return f"{folder / part} is missing"
        classes[part] = sorted(entry.name for entry in (folder / part).iterdir() if entry.is_dir())
        if len(classes[part]) != wanted:
            return f"{folder / part} has {len(classes[part]):,} classes, not {wanted:,}"
    if not (here.data / name / MANIFEST_FILE).is_file():
        return ""
    manifest = read_manifest(FolderManifest, name, here.data)
    if classes["train"] != list(manifest.classes):
        return f"{folder} has other classes than when it was prepared"
    if not here.thorough:
        return ""
    changed = scan_folder(name, folder).digest != manifest.digest
    return f"{folder} has changed since it was prepared" if changed else ""


def _cause(here: Surroundings, error: EastError) -> str:
    """The first sentence of an error, with paths as people would write them here; the second says what to do."""
    return str(error).split(". ")[0].replace(f"{here.ask.folder}/", "")


def _prepare(here: Surroundings, name: str) -> str:
    return f"east prepare {name} --data-dir {shlex.quote(here.plan.config.execution.data_dir)}"
