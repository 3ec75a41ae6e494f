"""Reads CIFAR-10 and CIFAR-100 from their official archives through torchvision."""

import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from east.data.manifest import SourceFile, md5
from east.data.source import SourceImages
from east.errors import EastError


def fetch_archive(archive: Any, raw: Path) -> Path:
    """The verified archive in `raw`, downloaded if it is not there.

    An existing file is never replaced: the user may have put it there on a machine without a network.

    Args:
        archive: a class of torchvision, which says where the archive is and what its checksums are.
        raw: the folder of downloads.

    Raises:
        EastError: the existing file has the wrong checksum, or the archive cannot be downloaded.
    """
    path: Path = raw / archive.filename
    if path.exists():
        found = md5(path)
        if found != archive.tgz_md5:
            raise EastError(
                f"{path} is damaged or incomplete: its md5 is {found}, not {archive.tgz_md5}. "
                "Delete it to download it again, or replace it with a complete copy."
            )
        return path

    from torchvision.datasets.utils import download_url

    with scratch_folder(raw / f".{archive.filename}.download") as scratch:
        try:
            download_url(archive.url, scratch, archive.filename, archive.tgz_md5)
        except (OSError, RuntimeError, HTTPException) as error:
            raise EastError(
                f"{archive.filename} could not be downloaded from {archive.url} ({error}). "
                f"Put the file (md5 {archive.tgz_md5}) into {raw.resolve()} and run this again."
            ) from error
        # Synced first, so that a crash leaves the whole file or none under the final name.
        with (scratch / archive.filename).open("rb") as file:
            os.fsync(file.fileno())
        (scratch / archive.filename).replace(path)
    return path


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield `path` as an empty folder and remove it afterwards, including what a killed job left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def read_cifar(archive: Any, raw: Path) -> SourceImages:
    """Read a CIFAR archive, downloading it into `raw` if necessary.

    torchvision would unpack the archive trusting every member. Here tarfile's data filter unpacks it first, refusing
    members and links that lead out of the folder; then torchvision verifies and reads it.

    Args:
        archive: `torchvision.datasets.CIFAR10`, `CIFAR100`, or a compatible class.
        raw: the folder of downloads.

    Raises:
        EastError: the archive is missing and cannot be downloaded, or is damaged.
    """
    raw.mkdir(parents=True, exist_ok=True)
    path = fetch_archive(archive, raw)
    with scratch_folder(raw / f".{archive.filename}.unpacked") as scratch:
        try:
            with tarfile.open(path, "r:gz") as tar:
                tar.extractall(scratch, filter="data")
            train = archive(scratch, train=True, download=False)
            test = archive(scratch, train=False, download=False)
        except tarfile.FilterError as error:
            raise EastError(
                f"{path} was refused: one of its members would be written outside its folder ({error}). "
                "Delete it and download it again from its official site."
            ) from error
        except (tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError) as error:
            raise EastError(
                f"{path} cannot be read as {archive.filename} ({error}). Delete it to download it again."
            ) from error
    members = (SourceFile(name=name, md5=checksum) for name, checksum in archive.train_list + archive.test_list)
    return SourceImages(
        train_images=torch.from_numpy(train.data).permute(0, 3, 1, 2),
        train_labels=torch.tensor(train.targets, dtype=torch.int64),
        test_images=torch.from_numpy(test.data).permute(0, 3, 1, 2),
        test_labels=torch.tensor(test.targets, dtype=torch.int64),
        sources=(SourceFile(name=archive.filename, md5=archive.tgz_md5), *members),
    )
