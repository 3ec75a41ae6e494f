"""What the training loop needs of an engine."""

from typing import Protocol

from torch import Tensor


class Engine(Protocol):
    """Executes a network whose parameters, masks and state dict stay those of its modules."""

    @property
    def name(self) -> str:
        """The name under which the config chooses it."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), differentiable with respect to the network's parameters.

        The gradients of masked weights are dense: the clip norm and growth need them where no weight is active.
        """
        ...

    def masks_changed(self) -> None:
        """Called after every change of the masks, before the next step."""
        ...
