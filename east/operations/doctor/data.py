"""Checks of data sets: prepared and intact, or to be had."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from safetensors import SafetensorError, safe_open

from east.config.choices import named
from east.config.run import ImagesSpec
from east.data.catalog import info_of, is_streamed
from east.data.checksums import SHA256, Checksums, verified
from east.data.idx_files import IDX_SETS, found_files, verified_content
from east.data.kind import DatasetFacts, dataset
from east.data.listing import layout_of, scan_folder
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, FolderManifest, ImagesManifest, read_manifest
from east.errors import EastError
from east.files import open_regular
from east.operations.doctor.surroundings import Finding, Surroundings

STOPS = "Every run on it would stop when it opens its data."


def datasets(here: Surroundings) -> Iterator[Finding]:
    """Every data set of the plan."""
    for images in here.plan.images().values():
        if is_streamed(images):
            yield _image_folder(here, images)
        elif (here.data / images.store / MANIFEST_FILE).is_file():
            yield _prepared(here, images)
        else:
            yield _unprepared(here, images)


def _unprepared(here: Surroundings, images: ImagesSpec) -> Finding:
    """Where the images will come from."""
    label, (reader, _, plugin) = info_of(images).label, named(images.reader)
    if plugin is not None:
        file = here.plan.config.catalogue.paths.get(plugin)
        return Finding("ok", f"{label}: will be read by the plugin {here.shown(file) if file else plugin[:12]}")
    folder = here.folder_of(images.name)
    if folder is not None and not folder.is_dir():
        fix = f"Set datasets.{images.name}.folder to the folder of its files."
        return Finding("error", f"{label}: there is no folder {folder}", "It is to be read from there.", fix)
    if reader in SHA256:
        return _raw(here, images, folder or here.data / "raw")
    if reader in IDX_SETS:
        return _idx(here, images, folder or here.data / "raw")
    facts: DatasetFacts = dataset[reader].facts
    if facts.reads == "nothing":
        return Finding("ok", f"{label}: will be made from scikit-learn's digits")
    if facts.reads == "folder" and folder is None:
        fix = f"Set datasets.{images.name}.folder to the folder of its images."
        return Finding("error", f"{label}: no image folder is named", "It cannot be downloaded.", fix)
    found = f"{label}: not prepared; to be read from {here.shown(folder or here.data / 'raw')}"
    why = "What is not there is downloaded, where that can be: this needs network where the job runs."
    return Finding("note", found, why, _prepare(here, images))


def _idx(here: Surroundings, images: ImagesSpec, folder: Path) -> Finding:
    """The four files of a data set that is not prepared are whole, or must be downloaded."""
    label, published = info_of(images).label, IDX_SETS[named(images.reader)[0]]
    files = found_files(published, folder)
    for name, path in files.items():
        try:
            verified_content(path, published.sha256[name])
        except EastError as error:
            why = "It would be refused when the data are prepared; a file that is there is never replaced."
            fix = _without(here, path, images)
            return Finding("error", f"{label}: {_cause(here, error)}", why, fix)
    if missing := [name for name in published.sha256 if name not in files]:
        why = "That needs network where the job runs. A node without it finds files that you put there, packed or not."
        what = f"{label}: {', '.join(missing)} to be downloaded to {here.shown(folder)}"
        return Finding("note", what, why, _prepare(here, images))
    places = sorted({str(here.shown(path.parent)) for path in files.values()})
    return Finding("ok", f"{label}: its files are whole in {' and '.join(places)}, checksums right; not yet prepared")


def _prepared(here: Surroundings, images: ImagesSpec) -> Finding:
    """The tensor file is what its manifest says: by its size and shapes, or, if that is asked for, by its checksum."""
    label, file = info_of(images).label, here.data / images.store / TENSOR_FILE
    checked = "size"
    try:
        manifest = read_manifest(ImagesManifest, images, here.data)
        # The library refuses a file of another size than its tensors need.
        with open_regular(file), safe_open(file, framework="numpy") as tensors:
            shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        if shapes != manifest.shapes:
            raise EastError(f"{file} is not what its manifest says.")
        if here.thorough and here.has_torch:
            from east.data.images import load_images

            load_images(images, here.data)
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
    return Finding("error", f"{label}: {problem}", STOPS, _prepare(here, images))


def _raw(here: Surroundings, images: ImagesSpec, raw: Path) -> Finding:
    """CIFAR that is not prepared: its archive is there, or what was unpacked of it, or it must be downloaded."""
    label, (name, _, _) = info_of(images).label, named(images.reader)
    archives = here.ask.probe("torchvision").get("archives")
    if archives is None:
        return Finding("note", f"{label}: not prepared; its archive cannot be looked at without torchvision")
    archive = archives[name]
    file, unpacked = raw / archive["file"], raw / archive["folder"]
    if not unpacked.is_dir() and all((raw / member).is_file() for member in archive["members"]):
        unpacked = raw
    if os.path.lexists(file):
        files = {file: Checksums(archive["md5"], SHA256[name])}
    elif unpacked.is_dir():
        files = {unpacked / member: Checksums(md5) for member, md5 in archive["members"].items()}
    else:
        host = urlsplit(archive["url"]).hostname
        why = "That needs network where the job runs. A node without it finds the file if you put it there."
        found = f"{label}: to be downloaded from {host}, to {here.shown(file)}"
        return Finding("note", found, why, _prepare(here, images))
    for path, checksums in files.items():
        try:
            verified(path, checksums)
        except EastError as error:
            why = "It would be refused when the data are prepared; a file that is there is never replaced."
            fix = _without(here, unpacked if path != file else file, images)
            return Finding("error", f"{label}: {_cause(here, error)}", why, fix)
    return Finding(
        "ok",
        f"{label}: {'its archive' if file in files else here.shown(unpacked)} is whole, checksums right; "
        "not yet prepared",
    )


def _without(here: Surroundings, damaged: Path, images: ImagesSpec) -> str:
    """How to do away with a file or folder that is damaged; what lies elsewhere is the user's, or a package's."""
    if not damaged.is_relative_to(here.data / "raw"):
        return f"Replace {here.shown(damaged)} with a complete copy."
    recursive = "-r " if damaged.is_dir() else ""
    return f"rm {recursive}{shlex.quote(str(here.shown(damaged)))} && {_prepare(here, images)}"


def _image_folder(here: Surroundings, images: ImagesSpec) -> Finding:
    """An image folder has its classes, those of the manifest, and if that is asked for the same images."""
    label, folder = info_of(images).label, here.folder_of(images.name)
    if folder is None:
        why = "It cannot be downloaded, and runs of this plan need it."
        fix = f"Set datasets.{images.name}.folder to the folder that holds its train/ and val/."
        return Finding("error", f"{label}: no image folder is named", why, fix)
    try:
        problem = _wrong_folder(here, images, folder)
    except EastError as error:
        problem = _cause(here, error)
    if not problem:
        where = " and ".join(f"{part}/" for part in layout_of(images).parts if part)
        return Finding("ok", f"{label}: {folder} has its classes{' in ' * bool(where)}{where}")
    where = f"--image-folder {shlex.quote(str(folder))}" if images.name == "imagenet" else ""
    fix = f"{_prepare(here, images)} {where}   # when all of it is there"
    return Finding("error", f"{label}: {problem}", STOPS, fix)


def _wrong_folder(here: Surroundings, images: ImagesSpec, folder: Path) -> str:
    """What sets an image folder apart from a whole one, or from the one that was prepared; empty if nothing does."""
    wanted, classes = info_of(images).num_classes, {}
    parts = layout_of(images).parts
    for part in parts:
        if not (folder / part).is_dir():
            return f"{folder / part} is missing"
        classes[part] = sorted(entry.name for entry in (folder / part).iterdir() if entry.is_dir())
        if len(classes[part]) != wanted:
            return f"{folder / part} has {len(classes[part]):,} classes, not {wanted:,}"
    if not (here.data / images.store / MANIFEST_FILE).is_file():
        return ""
    manifest = read_manifest(FolderManifest, images, here.data)
    if classes[parts[0]] != list(manifest.classes):
        return f"{folder} has other classes than when it was prepared"
    if not here.thorough:
        return ""
    changed = scan_folder(images, folder).digest != manifest.digest
    return f"{folder} has changed since it was prepared" if changed else ""


def _cause(here: Surroundings, error: EastError) -> str:
    """The first sentence of an error, with paths as people would write them here; the second says what to do."""
    return str(error).split(". ")[0].replace(f"{here.ask.folder}/", "")


def _prepare(here: Surroundings, images: ImagesSpec) -> str:
    command = f"east prepare {images.name} --data-dir {shlex.quote(here.plan.config.execution.data_dir)}"
    is_known = images.store == images.name and here.plan.config.datasets[images.name].folder is None
    files = "" if is_known or images.name == "imagenet" else here.east("").removeprefix("east ")
    return f"{command}{files}"
