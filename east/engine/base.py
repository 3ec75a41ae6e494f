"""What a training needs of an engine: gradients of active weights, and now and then more."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from east.engine.arithmetic import Arithmetic
from east.errors import EastError
from east.reproducibility import Reproducibility


class KernelsUnavailable(EastError):  # noqa: N818 - it says a state, as in "the kernels are unavailable"
    """The kernels cannot be compiled or loaded here; the message names the cause in one line."""


@dataclass(frozen=True)
class Workload:
    """An average step of a training, as far as it decides which engine is the faster one.

    Args:
        batch: images.
        probes: random signs for each output channel, with which dense gradients are contracted.
        dense: the share of steps, in [0, 1], that need all dense gradients.
    """

    batch: int = 128
    probes: float = 0.0
    dense: float = 0.0


PLAIN = Workload()
"""Steps that need gradients of active weights and no others."""


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """The criterion of every training: mean cross-entropy of a batch. Engines may compute it by themselves.

    Labels are (N,) int64.
    """

    labels: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """The mean over images, 0-d, of logits (N, classes)."""
        return F.cross_entropy(logits, self.labels)


@dataclass(frozen=True)
class GradientRequest:
    """What a step needs beyond the gradients of active weights and of parameters that are not masked.

    Args:
        dense: dense gradients of all masked weights, off ones included, in `layer.weight.grad`: for growth, or for a
            clip by their exact norm.
        signs: masked layer name -> random signs (probes, out), each +1 or -1 in float32, one for each output channel
            or feature: estimate the squared norm of the dense gradients with them.
    """

    dense: bool = False
    signs: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Gradients:
    """What a step returns beside the gradients that it leaves behind; all detached.

    Args:
        loss: the criterion's value, 0-d.
        logits: (N, classes).
        squared_norms: (probes,) in float64 where signs s were given: for each probe the sum over masked layers of
            ||s dW||^2, dW (out, in, ...) being the dense gradient, contracted over `out` and squared and summed over
            the rest. Its mean over signs is the squared norm of dW.
    """

    loss: Tensor
    logits: Tensor
    squared_norms: Tensor | None


@dataclass(frozen=True)
class Executed:
    """What an engine has executed since it was made.

    Attributes:
        engine: `sparse` or `dense`, or both names where both have executed.
        reproducibility: the weakest class of all that was executed.
        executions: kind of execution -> number of layers that were executed so at some time; a layer counts once for
            every kind.
        instruction_set: of the processor, as far as it was used.
        compiler: what compiled the engine's own kernels; None where it has none.
        extra_flags: what a user has added to the compiler's flags; None where there is no compiler.
    """

    engine: str
    reproducibility: Reproducibility
    executions: Mapping[str, int]
    instruction_set: str | None = None
    compiler: str | None = None
    extra_flags: str | None = None


@dataclass
class ExecutionLog:
    """Remembers in which ways each layer has been executed."""

    _kinds: dict[str, set[str]] = field(default_factory=dict)

    def note(self, executions: Mapping[str, str]) -> None:
        """Add how layers are executed from now on: layer name -> kind."""
        for layer, kind in executions.items():
            self._kinds.setdefault(layer, set()).add(kind)

    def counts(self) -> dict[str, int]:
        """Kind -> number of layers that were executed so at some time, by kind."""
        found = Counter(kind for kinds in self._kinds.values() for kind in kinds)
        return dict(sorted(found.items()))


class Engine(Protocol):
    """Executes a network whose parameters, masks and state dict stay those of its modules.

    An engine is made with the network's `ActiveWeights`, which it reads again if it lays the weights out differently.
    """

    @property
    def name(self) -> str:
        """The name under which the config chooses it."""

    @property
    def arithmetic(self) -> Arithmetic:
        """That of the clip and of the optimizer."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in; no gradient is needed."""

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in the mode that the network is in.

        It leaves the gradient in `.grad` of every parameter that is trained and not masked, laid out as the parameter
        is; in `ActiveWeights.gradient` of every masked layer that the loss depends on; and on request in
        `layer.weight.grad`. All of them are None when it is called.

        The criterion makes of logits (N, classes) a loss that can be differentiated.
        """

    def masks_changed(self) -> None:
        """Called after every change of the masks, before the next step; the `ActiveWeights` are up to date."""

    def signature(self, images: Tensor) -> Hashable:
        """What a step on such images depends on beyond the contents of the tensors that it reads.

        A CUDA graph that was captured when it was equal issues the right kernels on the right memory. Whether the
        `ActiveWeights` have got other memory, and which parameters are trained, is watched elsewhere.

        Of the images only the shape counts.
        """

    def executed(self) -> Executed:
        """What has been executed since the engine was made; before the first images, what would be."""
