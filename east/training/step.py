"""One optimizer step of a masked network, and the sums over the steps of an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from east.engine import CrossEntropy, Engine, GradientRequest
from east.sparse.active import ActiveWeights
from east.sparse.layers import apply_masks
from east.training.clip import GradientClip
from east.training.optimizer import Optimizer


class Step(Protocol):
    """What a training does with a batch, however it is executed."""

    def __call__(
        self, images: Tensor, labels: Tensor, lr: float, number: int, *, dense_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        """Train on one batch.

        Off weights stay exactly zero. If dense gradients were asked for, they are still in place afterwards.

        Args:
            images: (N, C, H, W).
            labels: (N,).
            lr: learning rate.
            number: of this step in the training, counted from 1.
            dense_gradients: whether the masks change after this step, by the gradients of all masked weights.

        Returns:
            The batch's summed cross-entropy and its number of correct predictions, both 0-d tensors on the device that
            hold until the next step.
        """

    def masks_changed(self) -> None:
        """Called after each change of the masks: dropped weights become zero, and all that depends on masks follows."""

    def phase_changed(self) -> None:
        """Called when parameters have left the network or are trained no longer."""


@dataclass(frozen=True)
class TrainingStep:
    """Forward, backward, clip, optimizer step: in the order of the authors' code (Section A.1).

    Every operation is issued one by one at each step.
    """

    engine: Engine
    optimizer: Optimizer
    active: Mapping[str, ActiveWeights]
    clip: GradientClip | None

    def __call__(
        self, images: Tensor, labels: Tensor, lr: float, number: int, *, dense_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        """Train on one batch, see `Step`."""
        request = self.request(number, dense_gradients=dense_gradients)
        return self.execute(images, labels, lr, number, request)

    def request(self, number: int, *, dense_gradients: bool) -> GradientRequest:
        """What step `number` (counted from 1) needs of the engine; signs of the clip are then on the device."""
        if self.clip is None:
            return GradientRequest(dense_gradients)
        return self.clip.request(number, dense=dense_gradients)

    def execute(
        self, images: Tensor, labels: Tensor, lr: float | Tensor, number: int, request: GradientRequest
    ) -> tuple[Tensor, Tensor]:
        """All of a step that is done on the device; the arguments and the result are those of `__call__`.

        The learning rate may be a tensor, see `Optimizer.step`. The number only decides whether the clip
        measures its norm.
        """
        self.optimizer.zero_grad()
        found = self.engine.gradients(images, CrossEntropy(labels), request)
        if self.clip is not None:
            self.clip.apply(number, self.optimizer.plain_gradients(), found.squared_norms)
        self.optimizer.step(lr)
        return found.loss * len(labels), (found.logits.argmax(1) == labels).sum()

    def masks_changed(self) -> None:
        """Set dropped weights to zero and follow the masks, after each change of them."""
        apply_masks({name: weights.layer for name, weights in self.active.items()})
        self.optimizer.masks_changed()
        self.engine.masks_changed()

    def phase_changed(self) -> None:
        """Nothing is kept that could be out of date."""


@dataclass
class EpochSums:
    """The steps of an epoch that are done: exact sums, so that an epoch that was cut goes on where it was.

    Attributes:
        steps: how many they are.
        images: in their batches.
        loss: summed cross-entropy, 0-d in float64 on the device.
        correct: number of correct predictions, 0-d in int64 on the device.
    """

    steps: int
    images: int
    loss: Tensor
    correct: Tensor

    @classmethod
    def begin(cls, device: torch.device) -> Self:
        """Those of an epoch in which nothing is done."""
        return cls.load({"steps": 0, "images": 0, "loss": 0.0, "correct": 0}, device)

    @classmethod
    def load(cls, saved: Mapping[str, float], device: torch.device) -> Self:
        """What `state_dict` gave."""
        # `torch.full` fills on the device, where `torch.tensor` would wait until the number has been copied there.
        return cls(
            steps=int(saved["steps"]),
            images=int(saved["images"]),
            loss=torch.full((), saved["loss"], dtype=torch.float64, device=device),
            correct=torch.full((), int(saved["correct"]), dtype=torch.int64, device=device),
        )

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Count one more step; nothing waits for the device."""
        self.steps += 1
        self.images += images
        self.loss += loss
        self.correct += correct

    @property
    def mean_loss(self) -> float:
        """Cross-entropy of an image."""
        return float(self.loss) / self.images

    @property
    def accuracy(self) -> float:
        """Correct predictions in percent."""
        return 100 * int(self.correct) / self.images

    def state_dict(self) -> dict[str, float]:
        """The sums as numbers, which lose no bit."""
        return {"steps": self.steps, "images": self.images, "loss": float(self.loss), "correct": int(self.correct)}
