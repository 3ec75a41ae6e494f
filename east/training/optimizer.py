"""SGD and Adam as PyTorch computes them, with state that masks, checkpoints and parameter removal can reach.

The arithmetic is that of `torch.optim`'s functional forms. Its classes are not used because the first one that is made
imports PyTorch's compiler, which costs a short run a third of its time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from east.config.run import TrainingSpec

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


class Optimizer(ABC):
    """Parameters and the state that goes with each.

    The fused steps run through memory, so a parameter must keep the layout that it has here.

    Args:
        parameters: what is trained; a parameter without a gradient is passed over by a step, weight decay included.
        slots: names of the state tensors of a parameter that have its shape.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], slots: Sequence[str]) -> None:
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {
            parameter: {slot: torch.zeros_like(parameter) for slot in slots} for parameter in parameters
        }

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.state:
            parameter.grad = None

    def step(self, lr: float) -> None:
        """Change every parameter that has a gradient."""
        parameters = [parameter for parameter in self.state if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        with torch.no_grad():
            self._update(parameters, gradients, lr)

    def reset(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set the state of some parameters to zero."""
        for parameter in parameters:
            for value in self.state[parameter].values():
                value.zero_()

    def remove(self, parameters: Iterable[nn.Parameter]) -> None:
        """Forget parameters that left the network."""
        for parameter in parameters:
            del self.state[parameter]

    def state_dict(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, in the order in which they were given."""
        return list(self.state.values())

    def load_state_dict(self, saved: Sequence[dict[str, Tensor]]) -> None:
        """Take over the state that `state_dict` gave."""
        for own, other in zip(self.state.values(), saved, strict=True):
            for slot, value in own.items():
                value.copy_(other[slot])

    @abstractmethod
    def _update(self, parameters: list[nn.Parameter], gradients: list[Tensor], lr: float) -> None:
        """Change parameters and state in place."""

    def _values(self, slot: str, parameters: list[nn.Parameter]) -> list[Any]:
        return [self.state[parameter][slot] for parameter in parameters]


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum and weight decay: `torch.optim.SGD`, step by step.

    The momentum starts at zero, which after the first step equals PyTorch's start at the first gradient.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        super().__init__(parameters, ("momentum",))
        self._momentum, self._nesterov, self._weight_decay = momentum, nesterov, weight_decay

    def _update(self, parameters: list[nn.Parameter], gradients: list[Tensor], lr: float) -> None:
        sgd(
            list(parameters),
            gradients,
            self._values("momentum", parameters),
            fused=True,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self._nesterov,
            maximize=False,
        )


class Adam(Optimizer):
    """`torch.optim.Adam`, step by step, with L2 weight decay and PyTorch's default constants."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(parameters, ("mean", "mean_square"))
        self._weight_decay = weight_decay
        for parameter, slots in self.state.items():
            slots["steps"] = torch.zeros((), device=parameter.device)

    def _update(self, parameters: list[nn.Parameter], gradients: list[Tensor], lr: float) -> None:
        adam(
            list(parameters),
            gradients,
            self._values("mean", parameters),
            self._values("mean_square", parameters),
            [],
            self._values("steps", parameters),
            fused=True,
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=lr,
            weight_decay=self._weight_decay,
            eps=ADAM_EPSILON,
            maximize=False,
        )


def make_optimizer(parameters: Iterable[nn.Parameter], spec: TrainingSpec) -> Optimizer:
    """SGD or Adam over all parameters, with weight decay on every one of them, as in the authors' code."""
    if spec.optimizer.name == "adam":
        return Adam(parameters, weight_decay=spec.weight_decay)
    return Sgd(
        parameters,
        momentum=spec.optimizer.momentum,
        nesterov=spec.optimizer.nesterov,
        weight_decay=spec.weight_decay,
    )
