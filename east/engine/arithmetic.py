"""What a step does with gradients and parameters as vectors: the norm for the clip, and the steps of optimizers."""

from collections.abc import Sequence
from typing import Protocol, TypedDict, Unpack

from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam
from torch.optim.sgd import sgd

Tensors = Sequence[Tensor]


class SgdRule(TypedDict):
    """The constants of a step of SGD."""

    momentum: float
    nesterov: bool
    weight_decay: float


class AdamRule(TypedDict):
    """The constants of a step of Adam, or with decoupled weight decay of AdamW."""

    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    decoupled: bool


class Arithmetic(Protocol):
    """What a step does with gradients and parameters as vectors, beyond forward and backward pass.

    Tensors of one call have one dtype and one device.
    """

    def sum_of_squares(self, tensors: Tensors) -> Tensor:
        """The sum of squares of all elements, 0-d in float64."""

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean of a vector in float64, 0-d."""

    def square_root(self, number: Tensor) -> Tensor:
        """The square root of a number, 0-d in float64."""

    def sgd(
        self, values: Tensors, gradients: Tensors, momenta: Tensors, lr: float | Tensor, **rule: Unpack[SgdRule]
    ) -> None:
        """One step of `torch.optim.SGD` in place, whose momenta begin at zero."""

    def adam(
        self,
        values: Tensors,
        gradients: Tensors,
        means: Tensors,
        mean_squares: Tensors,
        steps: Tensors,
        lr: float | Tensor,
        **rule: Unpack[AdamRule],
    ) -> None:
        """One step of `torch.optim.Adam` with L2 weight decay in place, or of `torch.optim.AdamW` with decoupled decay.

        `steps` (0-d each) count the steps made.
        """


class PyTorchArithmetic:
    """That of PyTorch's fused steps, see `Arithmetic`; nothing waits for the device."""

    def sum_of_squares(self, tensors: Tensors) -> Tensor:
        """The sum of squares of all elements, 0-d in float64."""
        return get_total_norm(list(tensors)).double().square()

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean of a vector in float64, 0-d."""
        return numbers.mean()

    def square_root(self, number: Tensor) -> Tensor:
        """The square root of a number, 0-d in float64."""
        return number.sqrt()

    def sgd(
        self, values: Tensors, gradients: Tensors, momenta: Tensors, lr: float | Tensor, **rule: Unpack[SgdRule]
    ) -> None:
        """One step of SGD in place."""
        sgd(
            list(values),
            list(gradients),
            list(momenta),
            fused=True,
            lr=lr,  # type: ignore[arg-type]
            dampening=0.0,
            maximize=False,
            **rule,
        )

    def adam(
        self,
        values: Tensors,
        gradients: Tensors,
        means: Tensors,
        mean_squares: Tensors,
        steps: Tensors,
        lr: float | Tensor,
        **rule: Unpack[AdamRule],
    ) -> None:
        """One step of Adam or AdamW in place."""
        adam(
            list(values),
            list(gradients),
            list(means),
            list(mean_squares),
            [],
            list(steps),
            fused=True,
            amsgrad=False,
            beta1=rule["betas"][0],
            beta2=rule["betas"][1],
            lr=lr,
            weight_decay=rule["weight_decay"],
            decoupled_weight_decay=rule["decoupled"],
            eps=rule["epsilon"],
            maximize=False,
        )
