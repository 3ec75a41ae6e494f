"""Reads CIFAR-10 and CIFAR-100 from their official archives, or from what was unpacked of them, through torchvision."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from east.data.checksums import Checksums, published_files, verified
from east.data.download import fetch_file, scratch_beside
from east.data.manifest import SourceFile
from east.data.source import SourceImages
from east.errors import EastError
from east.files import AtMost

MEMBER_BYTES = 2**28
"""More than the largest file in one has: 155 MB."""

UNPACKED_BYTES = 2**29
"""More than all files in one have together: 187 MB."""


def read_cifar(archive: Any, raw: Path, sha256: str | None = None) -> SourceImages:
    """Read CIFAR: its archive in `raw`, else what was unpacked of it there, else the archive that is downloaded.

    torchvision would unpack an archive trusting every member, and read an unpacked file after it has verified one of
    that name. Here every file is read once and verified as it was read; torchvision reads copies in a folder that is
    this user's alone.

    Args:
        archive: `torchvision.datasets.CIFAR10`, `CIFAR100`, or a compatible class.
        raw: the folder of downloads, or any that holds the archive, its unpacked folder, or the files of that.
        sha256: of the archive, which torchvision does not know; None where it is not known.

    Raises:
        EastError: the archive is missing and cannot be downloaded, or is damaged.
    """
    raw.mkdir(parents=True, exist_ok=True)
    path: Path = raw / archive.filename
    sources: list[SourceFile] = []
    with scratch_beside(raw / f".{archive.filename}.unpacked") as scratch:
        (scratch / archive.base_folder).mkdir()
        if (unpacked := unpacked_folder(archive, raw)) is not None:
            path = unpacked
            files = _unpacked(archive, path)
        else:
            fetch_archive(archive, raw)
            files = _packed(archive, path, verified(path, Checksums(archive.tgz_md5, sha256)))
            sources = [SourceFile(name=archive.filename, md5=archive.tgz_md5, sha256=sha256)]
        for name, content in files:
            (scratch / archive.base_folder / name).write_bytes(content)
        try:
            train, test = (archive(scratch, train=is_train) for is_train in (True, False))
        except (OSError, RuntimeError) as error:
            raise EastError(
                f"{path} cannot be read as {archive.filename} ({error}). Delete it to download it again."
            ) from error
    members = (SourceFile(name=name, md5=checksum) for name, checksum in archive.train_list + archive.test_list)
    return SourceImages(
        train_images=torch.from_numpy(train.data).permute(0, 3, 1, 2),
        train_labels=torch.tensor(train.targets),
        test_images=torch.from_numpy(test.data).permute(0, 3, 1, 2),
        test_labels=torch.tensor(test.targets),
        sources=(*sources, *members),
    )


def unpacked_folder(archive: Any, raw: Path) -> Path | None:
    """The folder of the files that somebody has unpacked; None where there is none, or the archive itself is there."""
    if os.path.lexists(raw / archive.filename):
        return None
    if (raw / archive.base_folder).is_dir():
        return Path(raw / archive.base_folder)
    return raw if (raw / archive.meta["filename"]).is_file() else None


def fetch_archive(archive: Any, raw: Path) -> None:
    """Download an archive into `raw` unless it is there.

    Args:
        archive: a class of torchvision, which says where the archive is and what its checksum is.
        raw: the folder of downloads.

    Raises:
        EastError: the archive cannot be downloaded.
    """
    fetch_file(raw / archive.filename, (archive.url,), archive.tgz_md5)


def _unpacked(archive: Any, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files that somebody has unpacked, verified."""
    for name, md5 in published_files(archive).items():
        yield name, verified(folder / name, Checksums(md5))


def _packed(archive: Any, path: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in an archive, verified; nothing else of it is unpacked."""
    wanted = {f"{archive.base_folder}/{name}": name for name in published_files(archive)}
    found = set()
    try:
        packed = AtMost(gzip.GzipFile(fileobj=io.BytesIO(content)), UNPACKED_BYTES)
        with tarfile.open(fileobj=packed, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                tarfile.data_filter(member, str(path.parent))
                stream = tar.extractfile(member) if member.name in wanted and member.isreg() else None
                if stream is None:
                    continue
                name = wanted[member.name]
                part = stream.read(MEMBER_BYTES)  # one that is cut there has another checksum
                if problem := Checksums(published_files(archive)[name]).problem(part):
                    raise EastError(
                        f"{path}: {member.name} in it is damaged: {problem}. Delete it to download it again."
                    )
                found.add(name)
                yield name, part
    except tarfile.FilterError as error:
        raise EastError(
            f"{path} was refused: one of its members leads outside its folder, or is no file ({error}). "
            "Delete it and download it again from its official site."
        ) from error
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise EastError(
            f"{path} cannot be read as {archive.filename} ({error}). Delete it to download it again."
        ) from error
    if missing := sorted(set(wanted.values()) - found):
        raise EastError(f"{path} holds no {missing[0]}. Delete it to download it again.")
