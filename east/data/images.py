"""Opens a prepared data set: maps it into memory and verifies it by its digest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from east.data.catalog import DATASETS
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, ImagesManifest, read_manifest
from east.data.source import Parts
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class Images(Parts):
    """A data set that fits in memory.

    Attributes:
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations of the same pixels.
        num_classes: classes.
        digest: `dataset_digest` of all these.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    digest: str


def dataset_digest(
    tensors: Mapping[str, Tensor], *, mean: tuple[float, ...], std: tuple[float, ...], num_classes: int
) -> str:
    """The digest (`digest_tensors`) of everything that the batches of a data set are made from.

    Args:
        tensors: images and labels, by their names in the tensor file.
        mean: channel means of pixels in [0, 1], digested as a float64 tensor `mean`.
        std: channel standard deviations of the same pixels, digested as a float64 tensor `std`.
        num_classes: classes, digested as an int64 tensor `num_classes`.
    """
    facts = {
        "mean": torch.tensor(mean, dtype=torch.float64),
        "std": torch.tensor(std, dtype=torch.float64),
        "num_classes": torch.tensor(num_classes),
    }
    return digest_tensors({**tensors, **facts})


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, in hexadecimal.

    What is hashed: for each tensor, sorted by name, a line `name dtype shape`, such as `mean float64 3` or
    `images uint8 10x3x8x8`, then its elements in row-major order as little-endian bytes.

    Args:
        tensors: by name, on any device and in any memory layout.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        elements = tensors[name].detach().contiguous().cpu().numpy()
        found.update(f"{name} {elements.dtype.name} {'x'.join(map(str, elements.shape))}\n".encode())
        found.update(np.ascontiguousarray(elements.astype(elements.dtype.newbyteorder("<"), copy=False)).data)
    return found.hexdigest()


def load_images(dataset: str, data_dir: Path) -> Images:
    """Map a prepared data set into memory, shared between processes, and verify it.

    Raises:
        EastError: it is not prepared, does not match its manifest, or differs from what this version prepares.
    """
    manifest = read_manifest(ImagesManifest, dataset, data_dir)
    path = data_dir / dataset / TENSOR_FILE
    fix = f"Prepare {DATASETS[dataset].label} again with `snakemake --cores 1 data`."
    if not path.exists():
        raise EastError(f"{path} is missing, although its manifest exists. {fix}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in manifest.shapes}
    except SafetensorError as error:
        raise EastError(f"{path} is damaged: {error}. {fix}") from error
    facts: dict[str, Any] = {"mean": manifest.mean, "std": manifest.std, "num_classes": manifest.num_classes}
    found = dataset_digest(tensors, **facts)
    if found != manifest.digest:
        raise EastError(
            f"{path} or its {MANIFEST_FILE} is damaged: the digest of the images is {found}, but the manifest says "
            f"{manifest.digest}. {fix}"
        )
    refuse_others(dataset, found, f"{path}: ", fix)
    return Images(digest=found, **tensors, **facts)


def refuse_others(dataset: str, digest: str, where: str, fix: str) -> None:
    """Refuse images whose digest is not the catalogue's, if it has one for this data set.

    Raises:
        EastError: the digests differ; the message begins with where the images are and ends with what to do.
    """
    info = DATASETS[dataset]
    if info.digest not in (None, digest):
        raise EastError(
            f"{where}these are not the {info.label} images that results refer to: their digest is {digest}, "
            f"not {info.digest}. {fix}"
        )
