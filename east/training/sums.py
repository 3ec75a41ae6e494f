"""Loss and accuracy of an epoch as sums over its steps, exact, so that an epoch that was cut goes on where it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass
class EpochSums:
    """The steps of an epoch that are done.

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
