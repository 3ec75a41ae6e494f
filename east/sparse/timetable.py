"""At which optimizer steps the masks change, and to what density."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal, cast

from east.config.choices import FIXED, NAMED_TOPOLOGIES, Choice, TopologySpec, named
from east.sparse.kinds import RuleFacts, drop_rule, growth_rule, initial_values
from east.sparse.schedule import Schedule

UpdateKind = Literal["cycle", "schedule", "return", "exchange"]


@dataclass(frozen=True)
class MaskUpdate:
    """One change of the masks.

    Args:
        step: the optimizer step, counted from 1, after which it happens.
        kind: `cycle` and `schedule` resize every tensor to the density of the moment, that of the cycles or of a
            density schedule; `return` does so to the exact target in the end; `exchange` drops and grows equally many
            weights.
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

    A density schedule has no periods of its own: every ΔT_dst the masks follow it, and once it stays at the target
    weights are exchanged. Exchanges end with `sparsity.update_until`.
    """

    schedule: Schedule

    @cached_property
    def last_step(self) -> int:
        """The step of the last update; 0 without any."""
        return max((update.step for update in self), default=0)

    def exchanges(self, update: MaskUpdate) -> bool:
        """Whether an update drops and grows weights whatever happens to the density."""
        sparsity = self.schedule.sparsity
        if update.kind != "exchange" and not sparsity.exchange_when_resizing:
            return False
        return update.step <= self.schedule.exploring_steps and self.schedule.drop_fraction(update.step) > 0

    def at(self, step: int) -> MaskUpdate | None:
        """The mask update after step `step` (counted from 1), if there is one."""
        schedule = self.schedule
        sparsity, cycle = schedule.sparsity, schedule.cycle
        if sparsity.topology == FIXED:
            return None
        if schedule.density_schedule is not None and step <= schedule.resizing_end_step:
            if step % sparsity.update_period:
                return None
            if step == schedule.resizing_end_step:
                return MaskUpdate(step, "return", sparsity.density)
            return MaskUpdate(step, "schedule", schedule.density(step))
        if cycle is not None and step <= schedule.cycle_end_step:
            if step == schedule.cycle_end_step and cycle.end == "target":
                return MaskUpdate(step, "return", sparsity.density)
            if step % cycle.update_period == 0:
                return MaskUpdate(step, "cycle", schedule.cycle_density(step))
            return None
        if step == schedule.total_steps and not sparsity.update_on_last_step:
            return None
        if step > schedule.exploring_steps:
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
        every = any(facts.gradient == "steps" for facts in rule_facts(schedule.sparsity.topology).values())
        for epoch in range(1, schedule.epochs + 1):
            dynamic, end = schedule.beta(epoch) > 0, epoch * schedule.steps_per_epoch
            while updates and updates[0].step <= end:
                update = updates.popleft()
                steps = update.step - position
                dense = steps if every else int(self._needs_gradient(update, density))
                yield epoch, Phase(density, dynamic, steps, updates=1, dense_gradients=dense)
                position, density = update.step, update.density
            steps = end - position
            yield epoch, Phase(density, dynamic, steps, epochs=1, dense_gradients=steps if every and updates else 0)
            position = end

    def _needs_gradient(self, update: MaskUpdate, density: float) -> bool:
        """Whether an update of masks of this density looks at gradients of off weights."""
        exchanges = self.exchanges(update)
        grows, drops = exchanges or update.density > density, exchanges or update.density < density
        facts = rule_facts(self.schedule.sparsity.topology)
        looking = {name for name, own in facts.items() if own.gradient != "never"}
        return (grows and bool(looking & {"grow", "initial"})) or (drops and "drop" in looking)


def rule_facts(topology: str | TopologySpec) -> dict[str, RuleFacts]:
    """What the rules of a topology declare, by what they do; nothing for masks that never change.

    Raises:
        EastError: one of them is in a plugin that is not loaded.
    """
    if topology == FIXED:
        return {}
    rules: tuple[str | Choice, ...]
    if isinstance(topology, str):
        rules = NAMED_TOPOLOGIES[topology]
    else:
        rules = (topology.drop, topology.grow, topology.initial)
    kinds = {"drop": drop_rule, "grow": growth_rule, "initial": initial_values}
    facts = {}
    for (name, kind), choice in zip(kinds.items(), rules, strict=True):
        chosen, _, plugin = named(choice)
        facts[name] = cast(RuleFacts, kind.find(chosen, plugin).facts)
    return facts
