"""Optimizers with state for active weights alone; the arithmetic is the engine's (`east.sparse.optimizers`).

PyTorch's own classes are not used: the first one that is made imports PyTorch's compiler, which costs a short run a
third of its time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from east.config.choices import Choice, bound
from east.config.run import TrainingSpec
from east.engine import Arithmetic
from east.engine.arithmetic import Tensors
from east.plugins import blamed
from east.sparse import kinds, optimizers
from east.sparse.active import BLOCK, ActiveWeights, JointWeights
from east.sparse.kinds import OptimizerFacts
from east.sparse.view import OptimizerStep

__all__ = ["Optimizer", "make_optimizer", "optimizers"]

STEPS = "steps"
"""The state that counts the steps of a parameter."""


class Optimizer:
    """Parameters and the state that goes with each; of masked weights, only the active ones.

    The fused steps run through memory, so a parameter must keep the layout that it has here. State keeps its memory
    when masks change, as long as it fits, and a step waits for nothing: it can be part of a CUDA graph. Weights whose
    active ones have a capacity are moved into a memory that they share.

    Args:
        parameters: what is trained; a parameter without a gradient is passed over by a step, weight decay included.
        active: the active weights of the masked layers, by name; their weights are among the parameters.
        slots: names of the state tensors of a parameter that hold a number for each of its weights.
        rule: changes operands in place by gradients, the state slot by slot and the learning rate.
        is_trusted: whether the rule leaves zeros without a gradient at zero; if not, they are put back.

    Attributes:
        state: parameter -> slot -> tensor: of the parameter's shape, or for a masked weight a vector that begins with
            the active weights' numbers in their order (zeros may follow).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        active: Mapping[str, ActiveWeights],
        slots: Sequence[str],
        rule: Callable[..., None],
        *,
        is_trusted: bool = True,
    ) -> None:
        self._rule, self._is_trusted = rule, is_trusted
        self._active: dict[Tensor, ActiveWeights] = {weights.layer.weight: weights for weights in active.values()}
        self._slots = tuple(slots)
        can_be_joined = active and all(weights.is_static for weights in active.values())
        self._joint = JointWeights(active.values()) if can_be_joined else None
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {
            parameter: {slot: torch.zeros_like(self._operand(parameter)) for slot in slots} for parameter in parameters
        }

    def count_steps(self) -> None:
        """Count the steps of each parameter, in a state of its own."""
        for parameter, slots in self.state.items():
            slots[STEPS] = torch.zeros((), device=parameter.device)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.state:
            parameter.grad = None
        for weights in self._active.values():
            weights.gradient = None

    def plain_gradients(self) -> list[Tensor]:
        """The gradients of all parameters that are not masked."""
        plain = (parameter for parameter in self.state if parameter not in self._active)
        return [parameter.grad for parameter in plain if parameter.grad is not None]

    def step(self, lr: float | Tensor) -> None:
        """Change every parameter that has a gradient; of masked weights only the active ones.

        Args:
            lr: learning rate; 0-d on the parameters' device, in float32 on a GPU and float64 elsewhere, where it is to
                be read when the step is executed.
        """
        found = {parameter: self._gradient(parameter) for parameter in self.state}
        gradients = {parameter: gradient for parameter, gradient in found.items() if gradient is not None}
        with torch.no_grad():
            operands = {parameter: self._operand(parameter) for parameter in gradients}
            slots = next(iter(self.state.values()), {})
            states = [[self.state[parameter][slot] for parameter in gradients] for slot in slots]
            self._rule(list(operands.values()), list(gradients.values()), *states, lr)
            for parameter, operand in operands.items():
                weights = self._active.get(parameter)
                if weights is None:
                    continue
                if not self._is_trusted and weights.positions is not None:
                    operand[weights.count :] = 0.0
                if operand is not weights.values:
                    weights.values.copy_(operand[: len(weights.values)])
                if self._joint is None:
                    weights.write_back()
            if self._joint is not None:
                self._joint.write_back()

    def dense_state(self, weights: ActiveWeights, name: str) -> Tensor:
        """What is kept of a masked weight under a name, in its shape, zero where the mask is off.

        Raises:
            KeyError: nothing of that name is kept.
        """
        return weights.scatter(next(slots for own, slots in self.state.items() if own is weights.layer.weight)[name])

    def masks_changed(self) -> None:
        """Read the active weights again: one that stays keeps its state, one that is grown starts with zeros."""
        for parameter, state in self.state.items():
            weights = self._active.get(parameter)
            if weights is None:
                continue
            before, old = weights.count, weights.read()
            if old is None and weights.positions is None:
                continue
            for slot in self._slots:
                carried = weights.carry_over(state[slot][:before], old)
                padded = _whole_blocks(weights, F.pad(carried, (0, len(weights.values) - len(carried))))
                if padded.shape == state[slot].shape:
                    state[slot].copy_(padded)
                else:
                    state[slot] = padded
        if self._joint is not None:
            self._joint.masks_changed()

    def reset(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set the state of some parameters to zero."""
        for parameter in parameters:
            for value in self.state[parameter].values():
                value.zero_()

    def remove(self, parameters: Iterable[nn.Parameter]) -> None:
        """Forget parameters that left the network."""
        for parameter in parameters:
            del self.state[parameter]
            self._active.pop(parameter, None)

    def state_dict(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, in the order in which they were given.

        Vectors of active weights are in row-major order, so that a run may go on with another memory format.
        """
        found = [dict(slots) for slots in self.state.values()]
        for parameter, slots in zip(self.state, found, strict=True):
            if (weights := self._active.get(parameter)) is not None:
                slots |= {slot: weights.to_row_major(slots[slot][: weights.count]) for slot in self._slots}
        return found

    def load_state_dict(self, saved: Sequence[dict[str, Tensor]]) -> None:
        """Take over the state that `state_dict` gave, of the same masks."""
        for (parameter, own), other in zip(self.state.items(), saved, strict=True):
            weights = self._active.get(parameter)
            for slot, value in own.items():
                if weights is None or slot not in self._slots:
                    value.copy_(other[slot])
                else:
                    value[: weights.count] = weights.from_row_major(other[slot])

    def _gradient(self, parameter: nn.Parameter) -> Tensor | None:
        weights = self._active.get(parameter)
        if weights is None:
            return parameter.grad
        return None if weights.gradient is None else _whole_blocks(weights, weights.gradient)

    def _operand(self, parameter: nn.Parameter) -> Tensor:
        weights = self._active.get(parameter)
        return parameter if weights is None else _whole_blocks(weights, weights.values)


def make_optimizer(
    parameters: Iterable[nn.Parameter], active: Mapping[str, ActiveWeights], spec: TrainingSpec, arithmetic: Arithmetic
) -> Optimizer:
    """A run's optimizer over all parameters, with weight decay on every one of them, as in the authors' code.

    Raises:
        EastError: it is in a plugin that is not loaded, or its parameters are not as the plugin wants them.
    """
    chosen = spec.optimizer
    choice = Choice(name=chosen.name, plugin=chosen.plugin, parameters=tuple(chosen.options().items()))
    entry, call = bound(kinds.optimizer, choice)
    facts = cast(OptimizerFacts, entry.facts)

    def rule(values: Tensors, gradients: Tensors, *states_and_rate: Any) -> None:
        *states, lr = states_and_rate
        state = dict(zip(facts.state, states, strict=False))
        counts = states[len(facts.state)] if facts.counts_steps else ()
        step = OptimizerStep(values, gradients, state, counts, lr, spec.weight_decay, arithmetic)
        with blamed(entry, "at a step"):
            call(step)

    optimizer = Optimizer(parameters, active, facts.state, rule, is_trusted=entry.plugin is None)
    if facts.counts_steps:
        optimizer.count_steps()
    return optimizer


def _whole_blocks(weights: ActiveWeights, vector: Tensor) -> Tensor:
    """A vector of active weights with zeros up to a whole number of blocks: a copy, or itself if there are none to add.

    So every weight is computed by the same instructions wherever it stands, and changes as in a dense step to the last
    bit. Where the values are the dense weight itself, the vector serves as it is.
    """
    missing = 0 if weights.positions is None else -len(vector) % BLOCK
    return F.pad(vector, (0, missing)) if missing else vector
