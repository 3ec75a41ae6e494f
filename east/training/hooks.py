"""What may be attached to the training loop: everything that is not the training itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from east.training.assembly import Training
    from east.training.records import EpochRecord, UpdateRecord

Ending = Literal["finished", "diverged", "stopped", "paused"]
"""Why the loop ended: all epochs are done; numbers are no longer finite; a hook raised SystemExit, as signals make it
do; the step was reached up to which it was asked to train."""


class Hook:
    """Called by the loop at the moments below, in this order; a hook overrides those that it needs.

    Hooks look at a training and change nothing in it. One that raises SystemExit in `before_batch` stops the training
    there; any other exception is a failure, after which nothing is called.
    """

    def on_begin(self, training: "Training") -> None:
        """The loop begins, at the start of the run or where a checkpoint left it."""

    def before_epoch(self, training: "Training") -> None:
        """An epoch begins, or what is left of it."""

    def before_batch(self, training: "Training") -> None:
        """A batch is about to be trained on or evaluated: the moments at which a training may be stopped."""

    def after_step(self, training: "Training", update: "UpdateRecord | None") -> None:
        """A step is done, and so is the mask update that followed it, if one was due."""

    def after_epoch(self, training: "Training", record: "EpochRecord") -> None:
        """All steps of an epoch are done and the network has been evaluated."""

    def on_end(self, training: "Training", ending: Ending) -> None:
        """The loop ends."""


class Hooks(Hook):
    """Several hooks as one, each called in turn."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)

    def on_begin(self, training: "Training") -> None:
        """See `Hook`; so are the others."""
        for hook in self._hooks:
            hook.on_begin(training)

    def before_epoch(self, training: "Training") -> None:  # noqa: D102
        for hook in self._hooks:
            hook.before_epoch(training)

    def before_batch(self, training: "Training") -> None:  # noqa: D102
        for hook in self._hooks:
            hook.before_batch(training)

    def after_step(self, training: "Training", update: "UpdateRecord | None") -> None:  # noqa: D102
        for hook in self._hooks:
            hook.after_step(training, update)

    def after_epoch(self, training: "Training", record: "EpochRecord") -> None:  # noqa: D102
        for hook in self._hooks:
            hook.after_epoch(training, record)

    def on_end(self, training: "Training", ending: Ending) -> None:  # noqa: D102
        for hook in self._hooks:
            hook.on_end(training, ending)
