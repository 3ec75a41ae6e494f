"""At which optimizer steps the masks change, and to what density."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from east.sparse.schedule import CyclicDensity

UpdateKind = Literal["cycle", "return", "exchange"]


@dataclass(frozen=True)
class MaskUpdate:
    """One change of the masks.

    Args:
        step: the optimizer step, counted from 1, after which it happens.
        kind: `cycle` resizes every tensor to the density of the moment, `return` does so to the exact target at the
            end of the last cycle, `exchange` drops and grows the same number of weights in each tensor.
        density: the density after it; an exchange leaves the one that is there.
    """

    step: int
    kind: UpdateKind
    density: float


@dataclass(frozen=True)
class Timetable:
    """All mask updates of a training (Section C, Table B.1).

    Inside the cyclic phase the masks follow the scheduled density every `cycle_period` steps and nothing is exchanged;
    outside, weights are exchanged every `update_period` steps.

    Args:
        density: the target density.
        total_steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of an epoch.
        update_period: ΔT_dst, steps between exchanges outside cycles.
        update_on_last_step: whether the last step of training may exchange weights that can no longer be trained.
        cycle: the cyclic schedule, if any.
        cycle_period: ΔT_cs, steps between updates inside cycles.
        return_to_target: force the exact target density at the end of the last cycle. If not (as the authors' code
            has it), the density stays where the last update inside the cycles left it, and one extra exchange happens
            at the first multiple of `cycle_period` after the cycles.
    """

    density: float
    total_steps: int
    steps_per_epoch: int
    update_period: int
    update_on_last_step: bool = False
    cycle: CyclicDensity | None = None
    cycle_period: int = 1
    return_to_target: bool = True

    @property
    def cycle_end_step(self) -> int:
        """The step that ends the last cycle; 0 without cycles."""
        if self.cycle is None:
            return 0
        return min(self.total_steps, round(self.cycle.end * self.steps_per_epoch))

    @property
    def settled_density(self) -> float:
        """The density that masks have after the cycles, and all the time without cycles."""
        if self.cycle is None or self.return_to_target:
            return self.density
        last_update = self.cycle_end_step // self.cycle_period * self.cycle_period
        return self.scheduled_density(0) if last_update == 0 else self._cycle_density(last_update)

    def scheduled_density(self, step: int) -> float:
        """The density that the schedule asks for after `step` steps, masks updated or not.

        The first step of a cycle stands at its very beginning, as in the authors' code.
        """
        if self.cycle is None or step >= self.cycle_end_step:
            return self.density
        return self._cycle_density(max(1, step))

    def update_at(self, step: int) -> MaskUpdate | None:
        """The mask update after step `step` (counted from 1), if there is one."""
        if self.cycle is not None and step <= self.cycle_end_step:
            if step == self.cycle_end_step and self.return_to_target:
                return MaskUpdate(step, "return", self.density)
            if step % self.cycle_period == 0:
                return MaskUpdate(step, "cycle", self._cycle_density(step))
            return None
        if step == self.total_steps and not self.update_on_last_step:
            return None
        if step % self.update_period == 0 or step == self._extra_exchange_step:
            return MaskUpdate(step, "exchange", self.settled_density)
        return None

    def __iter__(self) -> Iterator[MaskUpdate]:
        """All updates in order."""
        for step in range(1, self.total_steps + 1):
            update = self.update_at(step)
            if update is not None:
                yield update

    def _cycle_density(self, step: int) -> float:
        """What the cycles give for step `step`, counted from 1; the target density without cycles."""
        return self.density if self.cycle is None else self.cycle((step - 1) / self.steps_per_epoch)

    @property
    def _extra_exchange_step(self) -> int | None:
        if self.cycle is None or self.return_to_target:
            return None
        return (self.cycle_end_step // self.cycle_period + 1) * self.cycle_period
