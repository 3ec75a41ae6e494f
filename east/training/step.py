"""One optimizer step of a masked network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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
        ...

    def masks_changed(self) -> None:
        """Called after each change of the masks: dropped weights become zero, and all that goes by masks follows."""
        ...

    def phase_changed(self) -> None:
        """Called when parameters have left the network or are trained no longer."""
        ...


@dataclass(frozen=True)
class TrainingStep:
    """Forward, backward, clip, optimizer step: in the order of the authors' code (Section A.1).

    Every operation is issued anew at each step.

    Args:
        engine: executes the network.
        optimizer: over the network's parameters.
        active: the active weights of its masked layers, by name.
        clip: scales gradients; None for no clip.
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

        Args:
            images: (N, C, H, W).
            labels: (N,).
            lr: learning rate, see `Optimizer.step`.
            number: of this step; all that counts is whether the clip measures its norm.
            request: what `request` gave for this step.
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
