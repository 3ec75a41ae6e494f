"""Folders of images, such as ImageNet, decoded and cropped by worker processes while the device trains."""

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import functional as vision

from east.data.batches import Normalization
from east.data.listing import Sample
from east.errors import EastError
from east.files import open_regular
from east.seeding import RandomBits, generator

CROP_SIZE = 224
"""Of ImageNet's images."""
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
EVALUATION_BATCH = 250

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What is decoded, whatever a file's name says: some of ImageNet's err. Others may start programs, as EPS does."""
_TO_ALL = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU}
"""Signals that terminals and schedulers send to all processes of a job."""

IMAGE_BYTES = 2**28
"""More than the file of an image has."""


def draw_crop(width: int, height: int, random: RandomBits) -> tuple[int, int, int, int]:
    """Draw a crop of random area, shape and place, distributed like torchvision's RandomResizedCrop.

    The share of the image's area is uniform on `CROP_AREA`, the logarithm of width / height is uniform between those of
    `CROP_RATIO`. The first of ten draws that fits is placed at random; if none does, the crop is the largest central
    one whose ratio is within `CROP_RATIO`.

    Args:
        width: of the image.
        height: of the image.
        random: the random bits to draw from.

    Returns:
        Top, left, height and width, in pixels.
    """
    for share, exponent in random.uniform(20).view(-1, 2).tolist():
        area = width * height * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * share)
        ratio = _ratio(exponent)
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            top, left = (int(random.integers(room, 1)) for room in (height - high + 1, width - wide + 1))
            return top, left, high, wide
    wide = min(width, round(height * CROP_RATIO[1]))
    high = min(height, round(width / CROP_RATIO[0]))
    return (height - high) // 2, (width - wide) // 2, high, wide


View = Callable[[Image.Image, int, int], Tensor]
"""From a color image, the epoch, and the image's place in the listing to what the network sees: uint8 [3, H, W]."""


@dataclass(frozen=True)
class RandomView:
    """Training: a crop of random place, area and shape, mirrored by a fair coin.

    The choices depend on (seed, purpose, epoch, index) alone, not on the worker process that makes them.
    """

    seed: int
    purpose: str
    flip: bool
    size: int = CROP_SIZE

    def __call__(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        """The image in this epoch."""
        random = generator(self.seed, self.purpose, epoch, index)
        mirrored = bool(random.coins(1)) and self.flip
        shown = vision.resized_crop(image, *draw_crop(image.width, image.height, random), [self.size, self.size])
        return _pixels(vision.hflip(shown) if mirrored else shown)


@dataclass(frozen=True)
class CenterView:
    """Evaluation: the central square of the image scaled to a short side of 8/7 of it; of 256 pixels for ImageNet."""

    size: int = CROP_SIZE

    def __call__(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        """The image, the same in every epoch."""
        return _pixels(vision.center_crop(vision.resize(image, [self.size * 8 // 7]), [self.size, self.size]))


class FolderBatches:
    """Batches of an image folder, as in `east.data.batches.Batches`."""

    def __init__(
        self,
        samples: Sequence[Sample],
        view: View,
        *,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        workers: int,
        indices: Tensor | None = None,
        order_seed: int | None = None,
    ) -> None:
        """Remember what to read; files are opened during an epoch.

        Args:
            samples: all images of the listing.
            view: how each image is cropped and mirrored.
            device: where batches go.
            mean: channel means of pixels in [0, 1].
            std: channel standard deviations of the same pixels.
            batch_size: images per batch; the last batch of an epoch holds what is left.
            workers: processes that decode; 0 decodes in this one. The batches do not depend on it.
            indices: int64 places in `samples` of the images to show; None shows all.
            order_seed: the run's seed, to shuffle each epoch; None keeps the listing's order.
        """
        self._images = _FolderImages(samples, view)
        self._indices = torch.arange(len(samples)) if indices is None else indices
        self._device = device
        self._normalize = Normalization(mean, std, device)
        self._batch_size = batch_size
        self._workers = workers
        self._order_seed = order_seed

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, as in `Batches`; every image comes exactly once.

        Raises:
            EastError: an image cannot be decoded.
        """
        order = self._indices
        if self._order_seed is not None:
            order = order[generator(self._order_seed, "order", number).permutation(len(order))]
        size = self._batch_size
        loader: DataLoader[Any] = DataLoader(
            self._images,
            # The keys tell the workers the epoch without shared state.
            batch_sampler=(
                [(number, index) for index in order[first : first + size].tolist()]
                for first in range(start * size, len(order), size)
            ),
            num_workers=self._workers,
            collate_fn=_collate,
            worker_init_fn=_obey_parent,
            pin_memory=self._device.type == "cuda",
            # Without a generator, the loader would draw seeds for its workers from the global one.
            generator=torch.Generator(),
        )
        with without_signals():
            batches = iter(loader)  # starts the workers
        for batch in batches:
            if isinstance(batch, EastError):
                raise batch
            pixels, labels = batch
            yield (
                self._normalize(pixels.to(self._device, non_blocking=True)),
                labels.to(self._device, non_blocking=True),
            )


@contextmanager
def without_signals() -> Iterator[None]:
    """Processes that a block starts get none of the signals that all processes of a job are sent, as long as they live.

    They end when this process ends them, or is gone; it goes on until what it has begun is finished. Its own signals
    come when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
    try:
        # It lets some of them through again after it has started its own process.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_parent(worker: int) -> None:
    """Let this process, which has no other signals, be ended by its parent: at its end that waits for all workers."""
    if sys.platform == "darwin":  # which does not say who sent a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


class _FolderImages(Dataset[tuple[Tensor, int] | EastError]):
    def __init__(self, samples: Sequence[Sample], view: View) -> None:
        self._samples = samples
        self._view = view

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | EastError:
        epoch, index = key
        path, label = self._samples[index]
        try:
            return self._view(read_image(Path(path)), epoch, index), label
        except EastError as error:
            # Returned as a value: an error raised in a worker would arrive wrapped in the worker's traceback.
            return error


def read_image(path: Path) -> Image.Image:
    """An image in eight bits a channel, red, green and blue.

    Raises:
        EastError: it cannot be read, or holds more than eight bits a channel, or more pixels than Pillow deems safe.
    """
    try:
        with open_regular(path, at_most=IMAGE_BYTES) as stream, Image.open(stream, formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise EastError(
                    f"{path} has more than eight bits a pixel (mode {image.mode}), of which nothing but white might be "
                    "left. Convert it."
                )
            return image.convert("RGB")
    except EastError:
        raise
    except Image.DecompressionBombError as error:
        raise EastError(f"{path} has too many pixels ({error}). Unpack it again, or replace it.") from error
    except Exception as error:
        # Decoders of damaged files fail in any way.
        raise EastError(f"{path} cannot be read as an image ({error}). Unpack it again.") from error


def _collate(samples: list[tuple[Tensor, int] | EastError]) -> Any:
    failed = next((sample for sample in samples if isinstance(sample, EastError)), None)
    return failed or default_collate(samples)


def _ratio(share: float) -> float:
    """The ratio of width to height at a share of the way, in logarithms, from one end of `CROP_RATIO` to the other."""
    # (4 / 3) ** (2 share - 1) in decimals: the power of a C library may differ between machines.
    with localcontext(prec=30):
        return float((Decimal(4) / 3) ** (2 * Decimal(share) - 1))


def _pixels(image: Image.Image) -> Tensor:
    pixels: Tensor = vision.pil_to_tensor(image)
    return pixels
