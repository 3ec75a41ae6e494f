"""One optimizer step of a masked network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from east.engine import Engine, GradientRequest
from east.sparse.active import ActiveWeights
from east.sparse.layers import apply_masks
from east.training.clip import GradientClip
from east.training.optimizer import Optimizer


@dataclass(frozen=True)
class TrainingStep:
    """Forward, backward, clip, optimizer step: in the order of the authors' code (Section A.1).

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
        """Train on one batch.

        Off weights stay exactly zero. Afterwards the gradients are still in place for a mask update, the dense ones
        if they were asked for.

        Args:
            images: (N, C, H, W).
            labels: (N,).
            lr: learning rate.
            number: of this step in the training, counted from 1.
            dense_gradients: whether the masks change after this step, by the gradients of all masked weights.

        Returns:
            The batch's summed cross-entropy and its number of correct predictions, both 0-d tensors on the device.
        """
        self.optimizer.zero_grad()
        if self.clip is None:
            request = GradientRequest(dense_gradients)
        else:
            request = self.clip.request(number, dense=dense_gradients)
        found = self.engine.gradients(images, lambda logits: F.cross_entropy(logits, labels), request)
        if self.clip is not None:
            self.clip.apply(number, self.optimizer.plain_gradients(), found.squared_norms)
        self.optimizer.step(lr)
        return found.loss * len(labels), (found.logits.argmax(1) == labels).sum()

    def masks_changed(self) -> None:
        """Set dropped weights to zero and follow the masks, after each change of them."""
        apply_masks({name: weights.layer for name, weights in self.active.items()})
        self.optimizer.masks_changed()
        self.engine.masks_changed()
