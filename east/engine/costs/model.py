"""Seconds of a use of a layer, as a linear function of the work that it is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from east.engine.cpu.network import Unit
from east.engine.workload import Workload

Execution = Literal["fused", "dense"]
"""How a GPU executes a layer: its non-zeros, with the batch norm behind them, or all weights by PyTorch."""

Kind = Literal[
    "unit",
    "fused",
    "fused products",
    "layout",
    "convolution",
    "sketch",
    "module",
    "module numbers",
]
"""A kind of work, counted over the forward and the backward pass of a use of a layer.

`unit`: a use that kernels execute. `module`: one that the dense engine executes.
`fused`: numbers of its output, where its convolution takes no time of its own or is counted elsewhere.
`module numbers`: numbers of its output in the dense engine.
`fused products`: non-zeros times numbers of an output channel.
`convolution`: weights times numbers of an output channel, in PyTorch's convolutions.
`layout`: numbers that are copied from one layout to the other.
`sketch`: products of signs, and of what they give, with numbers of output and input.

Products of a use whose input needs no gradient count two thirds, as two convolutions in place of three.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""All of them. An engine that does not know an execution has no work of its kinds, and its model no seconds."""

Work = Mapping[Kind, float]
"""How much there is of each kind of work; none of those that are left out."""


@dataclass(frozen=True)
class CostModel:
    """What a GPU needs for each kind of work.

    Args:
        seconds: kind of work -> seconds for one of it, 0 or more.
    """

    seconds: Mapping[Kind, float]

    def predict(self, work: Work) -> float:
        """Seconds of some work."""
        return math.fsum(self.seconds[kind] * amount for kind, amount in work.items())

    def sparse(self, uses: Iterable[Unit], execution: Execution, nonzeros: int, workload: Workload) -> float:
        """Seconds of a layer in the sparse engine, summed over the places where it is used."""
        return math.fsum(self.predict(sparse_work(unit, execution, nonzeros, workload)) for unit in uses)

    def dense(self, uses: Iterable[Unit], workload: Workload) -> float:
        """Seconds of uses of any layers in the dense engine."""
        return math.fsum(self.predict(dense_work(unit, workload)) for unit in uses)


def sparse_work(unit: Unit, execution: Execution, nonzeros: int, workload: Workload) -> Work:
    """The work of a use of a layer in the sparse engine: convolution, batch norm and activation.

    What a DyReLU adds is left out here and in `dense_work`, as it takes neither engine's side.

    Args:
        unit: the use.
        execution: how its convolution is executed.
        nonzeros: of the layer.
        workload: an average step.
    """
    inputs, outputs, plane = _numbers(unit, workload.batch)
    weights = unit.conv.weight.numel()
    convolutions = _convolutions(unit)
    if execution == "dense":
        # Input and gradient are brought to PyTorch's layout, output and the input's gradient back from it. The dense
        # gradient is there in any case.
        layout = convolutions * inputs + 2 * outputs
        return {"unit": 1, "fused": outputs, "layout": layout, "convolution": weights * plane * convolutions / 3}
    products = nonzeros * plane * convolutions / 3
    work: dict[Kind, float] = {"unit": 1, "fused": outputs, "fused products": products}
    work["layout"] = workload.dense * (inputs + outputs)
    work["convolution"] = workload.dense * weights * plane / 3
    taps = unit.conv.kernel_size[0] ** 2
    work["sketch"] = workload.probes * plane * (unit.x.channels * taps + unit.y.channels)
    return work


def dense_work(unit: Unit, workload: Workload) -> Work:
    """The work of a use of a layer in the dense engine, where the clip finds dense gradients for nothing."""
    _, outputs, plane = _numbers(unit, workload.batch)
    products = unit.conv.weight.numel() * plane * _convolutions(unit) / 3
    return {"module": 1, "module numbers": outputs, "convolution": products}


def _numbers(unit: Unit, batch: int) -> tuple[int, int, int]:
    """Numbers of the input, of the output, and of one channel of the output."""
    return math.prod(unit.x.shape) * batch, math.prod(unit.y.shape) * batch, unit.y.height * unit.y.width * batch


def _convolutions(unit: Unit) -> int:
    """Forward, gradient of the weight and, where something is trained before it, gradient of the input."""
    return 2 if unit.x.producer is None else 3
