"""Opens a prepared data set: mapped into memory, and verified by its digest."""

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
        train_images: uint8 [N, C, H, W], validation images included; test_images likewise.
        train_labels: int64 [N] in 0..num_classes-1; test_labels likewise.
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations, likewise.
        num_classes: classes that the classifier tells apart.
        digest: of all these (`dataset_digest`).
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
    """The digest of everything that the batches of a data set are made of (`digest_tensors`).

    Args:
        tensors: images and labels, by the names that they have in the tensor file.
        mean: channel means of pixels in [0, 1]; a float64 tensor of that name.
        std: channel standard deviations, likewise.
        num_classes: classes; an int64 tensor of that name.
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
        EastError: if it is not prepared, is not what its manifest describes, or is not what this version makes of it.
    """
    manifest = read_manifest(ImagesManifest, dataset, data_dir)
    path = data_dir / dataset / TENSOR_FILE
    mend = f"Prepare {DATASETS[dataset].label} again with `snakemake --cores 1 data`."
    if not path.exists():
        raise EastError(f"{path} is missing though its manifest is there. {mend}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in manifest.shapes}
    except SafetensorError as error:
        raise EastError(f"{path} is damaged: {error}. {mend}") from error
    facts: dict[str, Any] = {"mean": manifest.mean, "std": manifest.std, "num_classes": manifest.num_classes}
    found = dataset_digest(tensors, **facts)
    if found != manifest.digest:
        raise EastError(
            f"{path} is damaged, or its {MANIFEST_FILE} is: the digest of the images is {found}, and {manifest.digest} "
            f"is written there. {mend}"
        )
    refuse_others(dataset, found, f"{path}: ", mend)
    return Images(name=dataset, digest=found, **tensors, **facts)


def refuse_others(dataset: str, digest: str, where: str, mend: str) -> None:
    """Refuse images of a data set whose digest is known that are not those it was taken of.

    Args:
        dataset: a key of `DATASETS`.
        digest: of the images at hand.
        where: they are, to begin the sentence with.
        mend: the sentence after it.

    Raises:
        EastError: the digest is not the one of the catalogue.
    """
    info = DATASETS[dataset]
    if info.digest not in (None, digest):
        raise EastError(
            f"{where}these are not the images of {info.label} that results are compared on: their digest is {digest}, "
            f"not {info.digest}. {mend}"
        )
