"""One optimizer step of a masked network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from east.config.run import ClipSpec
from east.engine import Engine
from east.sparse.layers import MaskedLayer, apply_masks
from east.training.optimizer import Optimizer
from east.training.recipe import clip_gradients


@dataclass(frozen=True)
class TrainingStep:
    """Forward, backward, clip, optimizer step, masks: in the order of the authors' code (Section A.1).

    Args:
        engine: executes the network.
        optimizer: over the network's parameters.
        layers: its masked layers by name.
        clip: how gradients are clipped.
    """

    engine: Engine
    optimizer: Optimizer
    layers: Mapping[str, MaskedLayer]
    clip: ClipSpec | None

    def __call__(self, images: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Train on one batch.

        Afterwards every off weight and its optimizer state are exactly zero, and the gradients (dense, clipped) are
        still in place for a mask update.

        Returns:
            The batch's summed cross-entropy and its number of correct predictions, both 0-d tensors on the device.
        """
        self.optimizer.zero_grad()
        logits = self.engine(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(self.optimizer.state, self.layers, self.clip)
        self.optimizer.step(lr)
        apply_masks(self.layers, self.optimizer)
        with torch.no_grad():
            return loss.detach() * len(labels), (logits.argmax(1) == labels).sum()

    def remask(self) -> None:
        """Apply masks that were changed after the step, before anything looks at the weights."""
        apply_masks(self.layers, self.optimizer)
