"""Opens a prepared data set: verified by checksum, then mapped into memory."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from east.data.catalog import DATASETS
from east.data.manifest import TENSOR_FILE, ImagesManifest, read_manifest
from east.data.storage import sha256
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
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


def load_images(dataset: str, data_dir: Path) -> Images:
    """Verify a prepared data set and map it into memory: pages are read when used and shared between processes.

    Raises:
        EastError: if it is not prepared, or its tensor file is missing or is not what the manifest describes.
    """
    manifest = read_manifest(ImagesManifest, dataset, data_dir)
    path = data_dir / dataset / TENSOR_FILE
    mend = f"Prepare {DATASETS[dataset].label} again with `snakemake --cores 1 data`."
    if not path.exists():
        raise EastError(f"{path} is missing though its manifest is there. {mend}")
    found = sha256(path)
    if found != manifest.sha256:
        raise EastError(f"{path} is damaged: its sha256 is {found}, the manifest says {manifest.sha256}. {mend}")
    with safe_open(path, framework="pt", device="cpu") as file:
        return Images(
            name=dataset,
            train_images=file.get_tensor("train_images"),
            train_labels=file.get_tensor("train_labels"),
            test_images=file.get_tensor("test_images"),
            test_labels=file.get_tensor("test_labels"),
            mean=manifest.mean,
            std=manifest.std,
            num_classes=manifest.num_classes,
        )
