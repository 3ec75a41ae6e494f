"""Reads Fashion-MNIST and MNIST from their four files in the format IDX."""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from east.data.download import fetch_file
from east.data.idx_files import FILES, IDX_SETS, IdxSet, found_files, verified_content
from east.data.manifest import SourceFile
from east.data.source import SourceImages, require_torchvision
from east.errors import EastError

UNSIGNED_BYTES = 0x08
"""What IDX calls the type of its elements here."""


def read_idx(name: str, folder: Path, size: int) -> SourceImages:
    """Read a data set from the files that there are, and download those that are nowhere.

    Args:
        name: of the data set, a key of `IDX_SETS`.
        folder: that holds the files, or a folder of them as torchvision names it.
        size: height and width of the squares in whose middle images stand.

    Raises:
        EastError: a file is damaged, or is nowhere and cannot be downloaded.
    """
    published = IDX_SETS[name]
    found = found_files(published, folder)
    for file in FILES:
        if file not in found:
            found[file] = _downloaded(published, file, folder)
    train_images, train_labels, test_images, test_labels = (
        _array(verified_content(found[file], published.sha256[file]), found[file]) for file in FILES
    )
    return SourceImages(
        framed(train_images, size).unsqueeze(1).repeat(1, 3, 1, 1),
        train_labels.to(torch.int64),
        framed(test_images, size).unsqueeze(1).repeat(1, 3, 1, 1),
        test_labels.to(torch.int64),
        # The same whoever packed the files.
        tuple(SourceFile(name=file, sha256=published.sha256[file]) for file in FILES),
    )


def framed(images: Tensor, size: int) -> Tensor:
    """Images [N, H, W] in the middle of black squares [N, size, size]; an odd pixel more is right and below.

    Raises:
        EastError: the squares are too small.
    """
    height, width = images.shape[1:]
    if size < max(height, width):
        raise EastError(f"images of {height} x {width} do not fit into squares of {size} pixels. Choose a larger size.")
    top, left = (size - height) // 2, (size - width) // 2
    return torch.nn.functional.pad(images, (left, size - width - left, top, size - height - top))


def _array(content: bytes, path: Path) -> Tensor:
    """The bytes of a file in the format IDX: two zeros, a type, the number of dimensions, their sizes, the bytes."""
    zeros, kind, dimensions = struct.unpack(">HBB", content[:4]) if len(content) >= 4 else (1, 0, 0)
    begin = 4 * (1 + dimensions)
    if zeros or kind != UNSIGNED_BYTES or len(content) < begin:
        raise EastError(f"{path} is not a file of bytes in the format IDX.")
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    if len(content) != begin + math.prod(shape):
        raise EastError(f"{path} has {len(content) - begin} bytes, not the {' x '.join(map(str, shape))} that it says.")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape).copy())


def _downloaded(published: IdxSet, name: str, folder: Path) -> Path:
    """Where a file of the data set is when it has been downloaded."""
    require_torchvision()
    import torchvision.datasets

    archive = getattr(torchvision.datasets, published.archive)
    path = folder / published.archive / "raw" / f"{name}.gz"
    fetch_file(path, [f"{mirror}{path.name}" for mirror in archive.mirrors], dict(archive.resources)[path.name])
    return path
