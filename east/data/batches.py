"""Batches made on the device: the whole data set is one uint8 tensor, and a batch is one gather."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from east.seeding import RandomBits, generator

EVALUATION_BATCH = 500
"""Images per step in evaluation: large, but small enough for a laptop's memory."""


class Batches(Protocol):
    """A split of a data set, as the training loop sees it."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int, start: int = ...) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: normalized float32 images [B, C, H, W] and int64 labels [B], on the device.

        Args:
            number: which epoch; the same number gives the same batches.
            start: batches to skip when an interrupted epoch resumes.
        """


def staged(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor placed so that copying it to a device with `non_blocking=True` waits for nothing.

    For a GPU it is a copy in page-locked memory, which PyTorch does not reuse before it has been read. A copy from
    ordinary memory would block the CPU, and then the GPU, until all earlier work is done.

    The tensor must already have the dtype that it will have on the device: one converted on the way is not staged.
    """
    return tensor.pin_memory() if device.type == "cuda" else tensor


class Normalization:
    """Turns uint8 pixels [B, C, H, W] into float32 with mean 0 and standard deviation 1 in each channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = (255 * torch.tensor(mean, dtype=torch.float64)).float().view(1, -1, 1, 1).to(device)
        self._std = (255 * torch.tensor(std, dtype=torch.float64)).float().view(1, -1, 1, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """A normalized copy of the pixels."""
        return pixels.float().sub_(self._mean).div_(self._std)


class Augmentation(NamedTuple):
    """The random choices of each image in one epoch.

    Attributes:
        top: first row of the crop in the padded image, int64 [N] in 0..2*margin.
        left: first column, in the same range.
        mirrored: whether the crop is mirrored left to right, bool [N].
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor


def draw_augmentation(count: int, margin: int, flip: bool, random: RandomBits) -> Augmentation:
    """Draw for each image, independently, a crop offset uniform on {0..2 margin}^2 and a fair coin for mirroring.

    This is the distribution of torchvision's RandomCrop with padding `margin` and RandomHorizontalFlip, for all images
    at once.
    """
    top = random.integers(2 * margin + 1, count)
    left = random.integers(2 * margin + 1, count)
    coin = random.coins(count)
    return Augmentation(top, left, coin if flip else torch.zeros_like(coin))


def pad_images(images: Tensor, margin: int, padding: Literal["reflect", "zero"]) -> Tensor:
    """Surround images [N, C, H, W] with `margin` pixels: mirrored at the edge pixel, or black.

    Black means the raw pixel 0, before normalization, as in torchvision's pipeline.
    """
    if padding == "zero":
        return torch.nn.functional.pad(images, (margin,) * 4)
    for dimension in (2, 3):
        last = images.shape[dimension] - 1
        position = torch.arange(-margin, last + margin + 1, device=images.device)
        images = images.index_select(dimension, last - (last - position.abs()).abs())
    return images


class TensorBatches:
    """Augmented batches of a data set that fits on the device.

    Crops and mirroring are drawn for the whole epoch on the CPU, so a run sees the same images on any device. Nothing
    waits for the device, neither within an epoch nor at its start.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        margin: int,
        padding: Literal["reflect", "zero"],
        flip: bool,
        seed: int,
        purpose: Literal["augment", "validation"] = "augment",
        shuffle: bool = True,
    ) -> None:
        """Move the data set to the device and pad it.

        Args:
            images: uint8 [N, C, H, W].
            labels: int64 [N].
            device: where batches are made.
            mean: channel means of pixels in [0, 1].
            std: channel standard deviations of the same pixels.
            batch_size: images per batch; the last batch of an epoch holds what is left.
            margin: pixels added on each side before the random crop; 0 for no crop.
            padding: how those pixels are filled.
            flip: whether images are mirrored at random.
            seed: the run's seed.
            purpose: names the generator of crops and mirroring.
            shuffle: whether each epoch has its own order, drawn for (seed, 'order', number), or the stored one.
        """
        _, channels, height, width = images.shape
        padded = pad_images(images.to(device), margin, padding)
        stride_y = padded.shape[3]
        stride_channel = padded.shape[2] * stride_y
        self._stride_y = stride_y
        self._stride_image = channels * stride_channel
        self._pixels = padded.flatten()
        self._labels = labels.to(device)
        self._normalize = Normalization(mean, std, device)
        self._rows = stride_y * torch.arange(height, device=device).view(1, 1, -1, 1)
        self._channels = stride_channel * torch.arange(channels, device=device).view(1, -1, 1, 1)
        self._columns = torch.arange(width, device=device).view(1, 1, 1, -1)
        self._batch_size = batch_size
        self._margin = margin
        self._flip = flip
        self._seed = seed
        self._purpose = purpose
        self._shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, as in `Batches`; every image comes exactly once."""
        count, device = len(self._labels), self._labels.device
        order = generator(self._seed, "order", number).permutation(count) if self._shuffle else torch.arange(count)
        drawn = draw_augmentation(count, self._margin, self._flip, generator(self._seed, self._purpose, number))
        # A mirrored crop starts at its right edge and steps left, so it is one gather like any other.
        right = self._columns.numel() - 1
        first = order * self._stride_image + (drawn.top * self._stride_y + drawn.left + right * drawn.mirrored)[order]
        step = torch.where(drawn.mirrored, -1, 1)[order]
        order, first, step = (staged(one, device).to(device, non_blocking=True) for one in (order, first, step))
        for batch in range(start, len(self)):
            chosen = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
            position = first[chosen].view(-1, 1, 1, 1) + self._channels + self._rows
            position = position + step[chosen].view(-1, 1, 1, 1) * self._columns
            yield self._normalize(self._pixels.take(position)), self._labels[order[chosen]]


class EvaluationBatches:
    """Batches without augmentation, in the stored order."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int = EVALUATION_BATCH,
    ) -> None:
        """Move the data set to the device; arguments as for `TensorBatches`."""
        self._images = images.to(device)
        self._labels = labels.to(device)
        self._normalize = Normalization(mean, std, device)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, as in `Batches`; the same in every epoch."""
        for batch in range(start, len(self)):
            chosen = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
            yield self._normalize(self._images[chosen]), self._labels[chosen]
