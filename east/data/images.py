"""Opens a prepared data set: maps it into memory and verifies it by its digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from east.data.catalog import DATASETS
from east.data.manifest import MANIFEST_FILE, TENSOR_FILE, ImagesManifest, read_manifest
from east.digest import digest_tensors
from east.errors import EastError


@dataclass(frozen=True, eq=False)
class Images:
    """A data set that fits in memory.

    Attributes:
        name: its key in `DATASETS`.
        train_images: uint8 [N, C, H, W], validation images included; also test_images.
        train_labels: int64 [N] in 0..num_classes-1; also test_labels.
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations of the same pixels.
        num_classes: classes.
        digest: `dataset_digest` of all these.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
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
    return Images(name=dataset, digest=found, **tensors, **facts)


def refuse_others(dataset: str, digest: str, where: str, fix: str) -> None:
    """Refuse images whose digest is not the catalogue's, if it has one for this data set.

    Args:
        dataset: a key of `DATASETS`.
        digest: of the images at hand.
        where: beginning of the message: where the images are.
        fix: end of the message: what to do.

    Raises:
        EastError: the digests differ.
    """
    info = DATASETS[dataset]
    if info.digest not in (None, digest):
        raise EastError(
            f"{where}these are not the {info.label} images that results refer to: their digest is {digest}, "
            f"not {info.digest}. {fix}"
        )
