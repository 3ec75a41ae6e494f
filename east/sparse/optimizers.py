"""How weights are trained: the steps of optimizers on the active weights and on all parameters that are not masked."""

from typing import TYPE_CHECKING

from east.parameters import Fraction, Positive
from east.sparse.kinds import optimizer

if TYPE_CHECKING:
    from east.sparse.view import OptimizerStep


@optimizer(state=("momentum",), paper="Sutskever et al., On the importance of initialization and momentum, 2013")
def sgd(step: "OptimizerStep", *, momentum: Fraction = 0.0, nesterov: bool = False) -> None:
    """Stochastic gradient descent with momentum and L2 weight decay: `torch.optim.SGD`, step by step.

    The momentum starts at zero, which after the first step equals PyTorch's start at the first gradient.

    Args:
        step: the operands.
        momentum: share of the momentum that a step keeps.
        nesterov: Nesterov's momentum.
    """
    step.arithmetic.sgd(
        step.values,
        step.gradients,
        step.state["momentum"],
        step.lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=step.weight_decay,
    )


@optimizer(state=("mean", "mean_square"), counts_steps=True, paper="Kingma & Ba, Adam, 2015")
def adam(step: "OptimizerStep", *, beta1: Fraction = 0.9, beta2: Fraction = 0.999, epsilon: Positive = 1e-8) -> None:
    """`torch.optim.Adam`, step by step, with L2 weight decay.

    Args:
        step: the operands.
        beta1: share of the mean gradient that a step keeps.
        beta2: share of the mean square that a step keeps.
        epsilon: added to the root of the mean square.
    """
    _adam(step, beta1, beta2, epsilon, decoupled=False)


@optimizer(state=("mean", "mean_square"), counts_steps=True, paper="Loshchilov & Hutter, AdamW, 2019")
def adamw(step: "OptimizerStep", *, beta1: Fraction = 0.9, beta2: Fraction = 0.999, epsilon: Positive = 1e-8) -> None:
    """`torch.optim.AdamW`, step by step: weights shrink by learning rate times weight decay, apart from the mean.

    Args:
        step: the operands.
        beta1: share of the mean gradient that a step keeps.
        beta2: share of the mean square that a step keeps.
        epsilon: added to the root of the mean square.
    """
    _adam(step, beta1, beta2, epsilon, decoupled=True)


def _adam(step: "OptimizerStep", beta1: float, beta2: float, epsilon: float, *, decoupled: bool) -> None:
    step.arithmetic.adam(
        step.values,
        step.gradients,
        step.state["mean"],
        step.state["mean_square"],
        step.counts,
        step.lr,
        betas=(beta1, beta2),
        epsilon=epsilon,
        weight_decay=step.weight_decay,
        decoupled=decoupled,
    )
