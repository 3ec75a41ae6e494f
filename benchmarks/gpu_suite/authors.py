"""The authors' way of training, written from the algorithm: the yardstick of every time on a GPU.

Masked dense tensors, a CPU data loader whose workers crop and mirror image by image, the loss and the number of correct
predictions read by the host at every step, and after every optimizer step weight x mask. cuDNN chooses its algorithms
by timing them and is held to deterministic ones, as in the authors' code; numbers are float32.
"""

import os
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from east.config.run import RunSpec
from east.models import ResNet
from east.sparse.layers import masked_layers

MOST_WORKERS = 8


class AuthorsStep:
    """One step on dense tensors times masks.

    Args:
        model: the network, with its masks, on its device.
        spec: the run; learning rate, momentum, weight decay and clip come from it.
    """

    def __init__(self, model: ResNet, spec: RunSpec) -> None:
        recipe = spec.training
        self.model = model
        self._clip = recipe.gradient_clip
        self._masks = {layer.weight: layer.mask.float() for layer in masked_layers(model).values()}
        # Adam is the optimizer of another recipe; nothing of Table 6 uses it.
        self._optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.optimizer.momentum,
            nesterov=recipe.optimizer.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.loss_sum, self.correct = 0.0, 0

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Train on a batch that is on the device."""
        self._optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip is not None:
            clip_grad_norm_(self.model.parameters(), self._clip.norm)
        self._optimizer.step()
        with torch.no_grad():
            for weight, mask in self._masks.items():
                weight.mul_(mask)
                self._optimizer.state[weight]["momentum_buffer"].mul_(mask)
        # What the host waits for at every step.
        self.loss_sum += loss.item()
        self.correct += int((logits.argmax(1) == labels).sum().item())


class AuthorsImages(Dataset[tuple[Tensor, int]]):
    """Images that are cropped and mirrored one by one, as torchvision's CIFAR10 with its transforms does it.

    Args:
        pixels: uint8 (N, 3, H, W).
        labels: (N,).
        mean: channel means of pixels in [0, 1].
        std: channel standard deviations, likewise.
        margin: pixels added on each side before the crop.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], margin: int
    ) -> None:
        self._pixels = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = labels.tolist()
        self._transform = Compose(
            [
                RandomCrop(pixels.shape[2:], padding=margin, padding_mode="reflect"),
                RandomHorizontalFlip(),
                ToTensor(),
                Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


class AuthorsBatches:
    """Shuffled batches of worker processes, moved to the device one by one."""

    def __init__(self, images: AuthorsImages, batch_size: int, device: torch.device, workers: int) -> None:
        self._device = device
        # Workers are kept between epochs, which is kind to the authors' way.
        self._loader = DataLoader(
            images,
            batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, the last and smaller one included."""
        for images, labels in self._loader:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


def loader_workers() -> int:
    """Processes that make the authors' batches: a core each, up to eight."""
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1))
