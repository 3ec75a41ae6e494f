"""At which optimizer steps the masks change, and to what density."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from east.sparse.schedule import Schedule

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
class Phase:
    """A stretch of a training in which density and kind of network stay the same.

    Args:
        density: of the masks.
        dynamic: whether DyReLU is active.
        steps: optimizer steps.
        updates: mask updates, the one that ends the phase included.
        dense_gradients: steps that need the gradients of off weights for their update.
        epochs: epochs that end in it.
    """

    density: float
    dynamic: bool
    steps: int = 0
    updates: int = 0
    dense_gradients: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Timetable:
    """All mask updates of a run (Section C, Table B.1).

    Inside the cycles the masks follow the scheduled density every `cycle.update_period` steps (ΔT_cs) and nothing is
    exchanged; outside, weights are exchanged every `sparsity.update_period` steps (ΔT_dst). At the end of the last
    cycle the masks return to the exact target density. If they do not (`cycle.end: as_coded`, as the authors' code has
    it), the density stays where the last update inside the cycles left it, and one extra exchange happens at the first
    multiple of ΔT_cs after the cycles. Fixed masks never change.
    """

    schedule: Schedule

    def at(self, step: int) -> MaskUpdate | None:
        """The mask update after step `step` (counted from 1), if there is one."""
        schedule = self.schedule
        sparsity, cycle = schedule.sparsity, schedule.cycle
        if sparsity.topology == "fixed":
            return None
        if cycle is not None and step <= schedule.cycle_end_step:
            if step == schedule.cycle_end_step and cycle.end == "target":
                return MaskUpdate(step, "return", sparsity.density)
            if step % cycle.update_period == 0:
                return MaskUpdate(step, "cycle", schedule.cycle_density(step))
            return None
        if step == schedule.total_steps and not sparsity.update_on_last_step:
            return None
        extra = None
        if cycle is not None and cycle.end != "target":
            extra = (schedule.cycle_end_step // cycle.update_period + 1) * cycle.update_period
        if step % sparsity.update_period == 0 or step == extra:
            return MaskUpdate(step, "exchange", schedule.settled_density)
        return None

    def __iter__(self) -> Iterator[MaskUpdate]:
        """All updates in order; only steps that can have one are looked at."""
        schedule, last = self.schedule, self.schedule.total_steps
        period = schedule.sparsity.update_period
        steps = set(range(period, last + 1, period))
        if schedule.cycle is not None:
            period = schedule.cycle.update_period
            steps |= {schedule.cycle_end_step, *range(period, last + 1, period)}
        return (update for update in map(self.at, sorted(steps - {0})) if update is not None)

    def phases(self, epochs_done: int = 0) -> Iterator[Phase]:
        """What the training consists of, in order.

        The first `epochs_done` epochs are left out.
        """
        left = (piece for epoch, piece in self._pieces() if epoch > epochs_done)
        for (density, dynamic), group in groupby(left, key=lambda piece: (piece.density, piece.dynamic)):
            pieces = list(group)
            yield Phase(
                density,
                dynamic,
                steps=sum(piece.steps for piece in pieces),
                updates=sum(piece.updates for piece in pieces),
                dense_gradients=sum(piece.dense_gradients for piece in pieces),
                epochs=sum(piece.epochs for piece in pieces),
            )

    def _pieces(self) -> Iterator[tuple[int, Phase]]:
        """The training cut at every update and at the end of every epoch, each piece with its epoch."""
        schedule, updates, density, position = self.schedule, deque(self), self.schedule.density(0), 0
        for epoch in range(1, schedule.epochs + 1):
            dynamic, end = schedule.beta(epoch) > 0, epoch * schedule.steps_per_epoch
            while updates and updates[0].step <= end:
                update = updates.popleft()
                dense = self._needs_gradient(update, density)
                yield epoch, Phase(density, dynamic, update.step - position, updates=1, dense_gradients=int(dense))
                position, density = update.step, update.density
            yield epoch, Phase(density, dynamic, end - position, epochs=1)
            position = end

    def _needs_gradient(self, update: MaskUpdate, density: float) -> bool:
        """Whether an update of masks of this density looks at gradients of off weights."""
        from east.sparse.topology import TOPOLOGIES  # not at the top: it imports PyTorch

        sparsity = self.schedule.sparsity
        exchanges = update.kind == "exchange" and max(sparsity.drop_fraction, sparsity.drop_fraction_end) > 0
        return TOPOLOGIES[sparsity.topology].needs_gradient(
            grows=exchanges or update.density > density, drops=exchanges or update.density < density
        )
