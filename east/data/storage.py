"""Checksums of files, downloads that appear only when whole, and folders that leave nothing behind."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its final name, so that a crash leaves the old file or the new one, never a part."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield `path` as an empty folder and remove it afterwards, leftovers of a killed job included."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal: what the CIFAR archives are published with."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
