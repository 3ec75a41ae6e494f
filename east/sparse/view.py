"""What rules and optimizers see: a layer at a mask update, and the operands of an optimizer step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from east.seeding import RandomBits
    from east.sparse.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Layer:
    """A masked layer, as one rule sees it after an optimizer step. Nothing of it is changed but `memory`.

    Attributes:
        name: in the network.
        weight: its weights, exactly zero where the mask is off.
        gradient: dense gradient of the loss of the step's batch; zeros where the rule declares that it does not look.
        mask: which weights are active before the update, bool.
        count: how many weights the rule is to choose: those that stay, for a drop rule; those that grow, for others. 0
            where all layers choose together, and where nothing is chosen yet.
        candidates: among which it chooses, bool: the active weights, or those that are off once weights are dropped.
        step: optimizer steps that are done.
        memory: what the rule keeps of the layer from step to step, by names of its own: tensors, which are part of
            every checkpoint.
        schedule: what the run prescribes; None outside a training.
        seed: the run's.
        purpose: whose view it is, so that two rules draw different numbers.
        state_of: optimizer state by name, see `optimizer_state`.
    """

    name: str
    weight: "Tensor"
    gradient: "Tensor"
    mask: "Tensor"
    count: int = 0
    candidates: "Tensor | None" = None
    step: int = 0
    memory: dict[str, "Tensor"] = field(default_factory=dict)
    schedule: "Schedule | None" = None
    seed: int = 0
    purpose: str = "rule"
    state_of: "Callable[[str], Tensor] | None" = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of weight, gradient and mask."""
        return tuple(self.weight.shape)

    @property
    def epoch(self) -> int:
        """The epoch of the step that is done, counted from 1; 0 outside a training."""
        return self.schedule.epoch_of(self.step) if self.schedule else 0

    @cached_property
    def active(self) -> int:
        """How many weights are active before the update."""
        return int(self.mask.sum())

    @cached_property
    def random(self) -> "RandomBits":
        """Random numbers of this rule, layer, step and seed: the same on every machine, unlike PyTorch's own."""
        from east.seeding import generator

        return generator(self.seed, self.purpose, self.name, self.step)

    def optimizer_state(self, name: str) -> "Tensor":
        """What the optimizer keeps of each weight under a name, such as `momentum`; zeros where the mask is off.

        Raises:
            KeyError: it keeps nothing of that name.
        """
        if self.state_of is None:
            raise KeyError(name)
        return self.state_of(name)


@dataclass(frozen=True, eq=False)
class OptimizerStep:
    """The operands of an optimizer step: parameter by parameter, of masked weights the active ones as a vector.

    Attributes:
        values: the parameters, which the optimizer changes in place.
        gradients: theirs.
        state: name -> what is kept of each parameter, changed in place.
        counts: steps that each parameter has made before, 0-d, to be raised by one; empty unless that is declared.
        lr: learning rate; 0-d on a GPU.
        weight_decay: that of the recipe.
        arithmetic: the engine's own steps (`east.engine.arithmetic`), with the same bits on every processor where the
            engine has them.
    """

    values: Sequence["Tensor"]
    gradients: Sequence["Tensor"]
    state: Mapping[str, Sequence["Tensor"]]
    counts: Sequence["Tensor"]
    lr: "float | Tensor"
    weight_decay: float
    arithmetic: Any

    def __iter__(self) -> Iterator[tuple["Tensor", ...]]:
        """Value, gradient and state of each parameter, the state in the order in which it is declared."""
        return zip(self.values, self.gradients, *self.state.values(), strict=True)
