"""Checksums by which published files are recognised, and the comparison of a file with them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from east.errors import EastError
from east.files import read_regular

FILE_BYTES = 2**28
"""More than an archive has (170 MB), or a file in one (155 MB)."""

SHA256 = {
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
}
"""SHA-256 of the official archives of CIFAR.

The site of the data set publishes MD5s only, which torchvision has too. These are those that Keras compares its
downloads with: `file_hash` in `load_data` of keras/src/datasets/cifar10.py and cifar100.py, in its package on PyPI.
"""


@dataclass(frozen=True)
class Checksums:
    """What a published file is recognised by.

    Attributes:
        md5: in hexadecimal.
        sha256: the same; None where none is published.
    """

    md5: str
    sha256: str | None = None

    def problem(self, content: bytes) -> str:
        """Which checksum of a content is another one, in words; empty where it is the published file's."""
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != self.md5:
            return f"its md5 is {found}, not {self.md5}"
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 not in (None, found):
            return f"its sha256 is {found}, not {self.sha256}"
        return ""


def verified(path: Path, checksums: Checksums) -> bytes:
    """The content of a published file.

    Raises:
        EastError: it cannot be read, or has other checksums.
    """
    try:
        content = read_regular(path, at_most=FILE_BYTES)
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}. Replace it with a complete copy.") from error
    if problem := checksums.problem(content):
        raise EastError(
            f"{path} is damaged or incomplete: {problem}. "
            "Delete it to download it again, or replace it with a complete copy."
        )
    return content


def published_files(archive: Any) -> dict[str, str]:
    """The files in an archive that are read, and the MD5 of each, as a class of torchvision has them."""
    return dict([*archive.train_list, *archive.test_list, (archive.meta["filename"], archive.meta["md5"])])
