"""The sparsity of one training: masks at the start, and their change after the steps of the timetable."""

from dataclasses import dataclass

from torch import nn

from east.config.run import RunSpec
from east.models.sharing import owned_weights, stored_nonzeros, virtual_weights
from east.sparse.layers import MaskedLayer, masked_layers
from east.sparse.masks import Allocation, MaskChange, initialise_masks, update_masks
from east.sparse.schedule import CyclicDensity, drop_fraction
from east.sparse.timetable import MaskUpdate, Timetable
from east.sparse.topology import TOPOLOGIES


def make_timetable(spec: RunSpec, steps_per_epoch: int) -> Timetable:
    """The mask updates of a run, for a data set of this many steps an epoch."""
    cycle = None
    if spec.cycle is not None:
        cycle = CyclicDensity(
            spec.sparsity.density,
            spec.cycle.multiplier,
            spec.cycle.pattern,
            spec.cycle.cycles,
            spec.cycle.cycle_length,
            spec.cycle.length_multiplier,
        )
    return Timetable(
        density=spec.sparsity.density,
        total_steps=spec.training.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        update_period=spec.sparsity.update_period,
        update_on_last_step=spec.sparsity.update_on_last_step,
        cycle=cycle,
        cycle_period=spec.cycle.update_period if spec.cycle else 1,
        return_to_target=spec.cycle is None or spec.cycle.end == "target",
    )


def make_allocation(model: nn.Module, distribution: str) -> Allocation:
    """How a budget is spread over the masked layers of a network; densities refer to its dense size."""
    shapes = {name: tuple(layer.weight.shape) for name, layer in masked_layers(model).items()}
    return Allocation(shapes, distribution, owned_weights(model) + virtual_weights(model))


@dataclass(frozen=True)
class SparseTraining:
    """Moves the masks of a network through a training.

    Args:
        layers: the masked layers by name.
        allocation: non-zeros of each tensor at a density.
        timetable: when masks change.
        spec: the run; topology, drop fraction and seed come from it.
    """

    layers: dict[str, MaskedLayer]
    allocation: Allocation
    timetable: Timetable
    spec: RunSpec

    @classmethod
    def of(cls, model: nn.Module, spec: RunSpec, steps_per_epoch: int) -> "SparseTraining":
        """The sparsity of a run on a network.

        Raises:
            EastError: the peak density asks for more weights than a network with weight sharing stores.
        """
        timetable = make_timetable(spec, steps_per_epoch)
        stored_nonzeros(model, _peak_density(spec))
        return cls(masked_layers(model), make_allocation(model, spec.sparsity.distribution), timetable, spec)

    def initialise(self) -> None:
        """Draw the masks of the start of training."""
        counts = self.allocation.counts(self.timetable.scheduled_density(0))
        initialise_masks(self.layers, counts, self.spec.seed)

    def peak_counts(self) -> dict[str, int]:
        """Active weights of each tensor where the density is highest."""
        return self.allocation.counts(_peak_density(self.spec))

    def drop_fraction(self, step: int) -> float:
        """The drop fraction after `step` optimizer steps."""
        sparsity = self.spec.sparsity
        total = self.timetable.total_steps
        return drop_fraction(step, total, sparsity.drop_fraction, sparsity.drop_fraction_end)

    def needs_gradient(self, step: int) -> bool:
        """Whether the masks change after step `step` (counted from 1) by the dense gradients of that step.

        They do where weights grow by gradient. While the density falls weights are only pruned, by their magnitude.
        """
        update = self.timetable.update_at(step)
        if update is None or not TOPOLOGIES[self.spec.sparsity.topology].needs_gradient:
            return False
        if update.kind == "exchange":
            return self.drop_fraction(step) > 0
        counts = self.allocation.counts(update.density)
        return any(counts[name] > int(layer.mask.sum()) for name, layer in self.layers.items())

    def update(self, step: int) -> tuple[MaskUpdate, MaskChange] | None:
        """Change the masks after step `step` (counted from 1) if the timetable says so; the gradients are that step's.

        Returns:
            What was done, or None where nothing is due or the topology is fixed.
        """
        update = self.timetable.update_at(step)
        rule = TOPOLOGIES[self.spec.sparsity.topology]
        if update is None or rule.grow is None:
            return None
        change = update_masks(
            self.layers,
            update,
            allocation=self.allocation,
            drop_fraction=self.drop_fraction(step),
            grow=rule.grow,
            needs_gradient=rule.needs_gradient,
            seed=self.spec.seed,
        )
        return update, change


def _peak_density(spec: RunSpec) -> float:
    return spec.sparsity.density * (spec.cycle.multiplier if spec.cycle else 1.0)
