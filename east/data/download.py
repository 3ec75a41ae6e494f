"""Downloads of published files, and scratch folders for what is made of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from east.errors import EastError


def fetch_file(path: Path, urls: Sequence[str], md5: str) -> None:
    """Download a file unless it is there.

    An existing file is never replaced: the user may have put it there on a machine without a network.

    Args:
        path: where it is to be.
        urls: where it is to be had, tried in turn.
        md5: its checksum.

    Raises:
        EastError: it cannot be downloaded.
    """
    # A link that leads nowhere today is the user's as well.
    if os.path.lexists(path):
        return

    from torchvision.datasets.utils import download_url

    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.with_name(f".{path.name}.download")) as scratch:
        for url in urls:
            try:
                download_url(url, scratch, path.name, md5)
                break
            except (OSError, RuntimeError, HTTPException) as error:
                failed = f"{path.name} could not be downloaded from {url} ({error})."
        else:
            raise EastError(f"{failed} Put the file (md5 {md5}) into {path.parent.resolve()} and run this again.")
        # Synced first, so that a crash leaves the whole file or none under the final name.
        with (scratch / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (scratch / path.name).replace(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield `path` as an empty folder of this user and remove it afterwards, and before it what a killed job left."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """The same; where nothing can be written beside a user's own files, among the temporary ones."""
    if os.access(path.parent, os.W_OK | os.X_OK):
        with scratch_folder(path) as scratch:
            yield scratch
    else:
        with tempfile.TemporaryDirectory(prefix="east-data-") as scratch_name:
            yield Path(scratch_name)
