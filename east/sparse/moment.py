"""A moment of a training, as schedules are asked about it."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Moment:
    """A moment between two optimizer steps.

    Args:
        step: steps that are done, from 0 to `total_steps`.
        total_steps: of the whole training.
        steps_per_epoch: of an epoch.
        skipped: steps at the start that are not the schedule's own, such as those of a warm-up.
    """

    step: int
    total_steps: int
    steps_per_epoch: int
    skipped: int = 0

    @property
    def share(self) -> Fraction:
        """What has passed of the schedule's part of the training, from 0 to 1, exactly."""
        return Fraction(max(0, self.step - self.skipped), max(1, self.total_steps - self.skipped))

    @property
    def epoch(self) -> Fraction:
        """Epochs that have passed since the start of training, exactly."""
        return Fraction(self.step, self.steps_per_epoch)

    @property
    def epoch_number(self) -> int:
        """The epoch of the step that comes next, counted from 1."""
        return self.step // self.steps_per_epoch + 1
