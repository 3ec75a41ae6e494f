"""Reads CIFAR-10 and CIFAR-100 from their official archives through torchvision."""

import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from east.data.manifest import SourceFile
from east.data.source import SourceImages
from east.data.storage import md5, publish, scratch_folder
from east.errors import EastError


class CifarPart(Protocol):
    """The training or test part of an opened archive: `data` is uint8 [N, H, W, C]."""

    data: NDArray[Any]
    targets: list[int]


class CifarArchive(Protocol):
    """A torchvision CIFAR data set class: where the archive is, its checksums, and how to read it."""

    url: str
    filename: str
    tgz_md5: str
    train_list: list[list[str]]
    test_list: list[list[str]]

    def __call__(self, root: Path, *, train: bool, download: bool) -> CifarPart:
        """Verify and read the unpacked archive under `root`."""


def fetch_archive(archive: CifarArchive, raw: Path) -> Path:
    """The verified archive in `raw`, downloaded if it is not there.

    A file that is there already is never replaced: the user may have put it there on a machine without network.

    Raises:
        EastError: if the file that is there has the wrong checksum, or if it cannot be downloaded.
    """
    path = raw / archive.filename
    if path.exists():
        found = md5(path)
        if found != archive.tgz_md5:
            raise EastError(
                f"{path} is damaged or incomplete: its md5 is {found}, not {archive.tgz_md5}. "
                "Delete it to download it again, or replace it with a whole copy."
            )
        return path

    from torchvision.datasets.utils import download_url

    with scratch_folder(raw / f".{archive.filename}.download") as scratch:
        try:
            download_url(archive.url, scratch, archive.filename, archive.tgz_md5)
        except (OSError, RuntimeError, HTTPException) as error:
            raise EastError(
                f"{archive.filename} could not be downloaded from {archive.url} ({error}). "
                f"Put the file (md5 {archive.tgz_md5}) into the folder {raw.resolve()} and run this again."
            ) from error
        publish(scratch / archive.filename, path)
    return path


def read_cifar(archive: CifarArchive, raw: Path) -> SourceImages:
    """Read a CIFAR archive, downloading it into `raw` if need be.

    torchvision would unpack the archive with every member trusted; here it is unpacked through tarfile's data
    filter, which refuses members and links that lead out of the folder, before torchvision verifies and reads it.

    Args:
        archive: `torchvision.datasets.CIFAR10`, `CIFAR100`, or a class like them.
        raw: the folder of downloads.

    Raises:
        EastError: if the archive is missing and cannot be downloaded, or is damaged.
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
                f"{path} was refused because a member would be written outside its folder ({error}). "
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
