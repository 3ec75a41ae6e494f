"""How images are shown to a trained network: as those of its data set were, in size, pixels and normalization."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from east.config.choices import named
from east.config.run import DatasetSpec
from east.data.batches import Normalization
from east.data.catalog import info_of, is_streamed
from east.data.class_names import class_names
from east.data.idx import framed
from east.data.idx_files import IDX_SETS, SIDE
from east.data.listing import IMAGE_SUFFIXES
from east.data.manifest import MANIFEST_FILE, FolderManifest, ImagesManifest, read_manifest
from east.data.source import require_torchvision
from east.errors import EastError


@dataclass(frozen=True)
class ImageFacts:
    """What a network has learnt its images as.

    Attributes:
        classes: their names, in the order of logits.
        shape: channels, height and width.
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations of the same pixels.
        cropped: whether of an image that is scaled to a somewhat longer short side the centre is taken, as of ImageNet;
            otherwise the largest part of the right shape is scaled.
        within: pixels of the side of a square that images are scaled to, in the middle of a black border, as MNIST's;
            None where there is no border.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cropped: bool = False
    within: int | None = None

    def normalized(self, pixels: Tensor) -> Tensor:
        """What the network is shown of uint8 pixels [N, C, H, W]."""
        return Normalization(self.mean, self.std, pixels.device)(pixels)

    def pixels(self, path: Path) -> Tensor:
        """A file as uint8 [C, H, W].

        Raises:
            EastError: it cannot be read as an image.
        """
        require_torchvision()
        # It needs torchvision, which nothing else here does.
        from east.data.folder import CenterView, read_image

        image = read_image(path)
        if self.cropped:
            return CenterView(self.shape[1])(image, 0, 0)
        channels, height, width = self.shape
        if self.within is not None:
            inner = replace(self, shape=(channels, self.within, self.within), within=None)
            return framed(inner.pixels(path), height)
        fitted = _centre(image, width / height).resize((width, height), Image.Resampling.BILINEAR)
        if channels == 1:
            return torch.from_numpy(np.array(fitted.convert("L"))).unsqueeze(0)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _centre(image: Image.Image, ratio: float) -> Image.Image:
    """The largest part of an image, in its middle, of a ratio of width to height."""
    width, height = min(image.width, round(image.height * ratio)), min(image.height, round(image.width / ratio))
    width, height = max(1, width), max(1, height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def image_facts(dataset: DatasetSpec, digest: str | None, data_dir: Path) -> ImageFacts | None:
    """What images of a data set are to a network that was trained on it; None where the set is not prepared.

    Args:
        dataset: as its run describes it.
        digest: of the prepared set that the network was trained on; None if its run does not say.
        data_dir: where data sets are prepared.

    Raises:
        EastError: what is prepared is damaged, or other images than those that the network was trained on.
    """
    path = data_dir / dataset.store / MANIFEST_FILE
    if not path.is_file():
        return None
    found: FolderManifest | ImagesManifest
    if is_streamed(dataset):
        found = read_manifest(FolderManifest, dataset, data_dir)
    else:
        found = read_manifest(ImagesManifest, dataset, data_dir)
    if digest not in (None, found.digest):
        raise EastError(
            f"{path} is of other images than those that the network was trained on (digest {found.digest[:12]}…, not "
            f"{digest[:12]}…), so its classes may be others. Name the folder of those with --data-dir."
        )
    if isinstance(found, FolderManifest):
        return ImageFacts(found.classes, info_of(dataset).image_shape, found.mean, found.std, cropped=True)
    _, channels, height, width = found.shapes["test_images"]
    classes = found.classes or class_names(dataset.reader, found.num_classes)
    reader, _, plugin = named(dataset.reader)
    within = SIDE if plugin is None and reader in IDX_SETS else None
    return ImageFacts(classes, (channels, height, width), found.mean, found.std, within=within)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder and of those in it, by name; hidden files and folders are passed over.

    Raises:
        EastError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise EastError(f"{folder} is no folder.")
    found = [path for path in sorted(folder.rglob("*")) if _is_image(path.relative_to(folder).parts, path)]
    if not found:
        raise EastError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}).")
    return found


def _is_image(parts: Sequence[str], path: Path) -> bool:
    return (
        not any(part.startswith(".") for part in parts) and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    )
