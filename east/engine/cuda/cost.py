"""What a layer costs on a GPU, as a linear function of counted work, and how it is executed: as costs least."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from east.engine.base import Workload
from east.engine.graph.network import Network, Unit
from east.engine.graph.program import Execution

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
"""All of them."""

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


@dataclass(frozen=True)
class Cheapest:
    """Chooses for every layer what costs least, summed over the places where it is used.

    The choice affects results by rounding only. It depends on nothing but the network, the number of non-zeros, the
    workload and the model.

    Args:
        model: gives the cost model; asked when there is a choice.
        workload: an average step.
        among: what is chosen from. A layer with a dense part is executed densely in any case, and so is the classifier,
            which takes next to no time in any way.
    """

    model: Callable[[], CostModel]
    workload: Workload
    among: tuple[Execution, ...] = ("fused", "dense")

    def __call__(self, network: Network, nonzeros: Mapping[str, int]) -> dict[str, Execution]:
        """The execution of every masked layer."""
        chosen: dict[str, Execution] = {network.head.layer: "dense"}
        for layer, units in network.uses.items():
            if units[0].dct is not None:
                chosen[layer] = "dense"
            elif units[0].masked is None:
                chosen[layer] = "fused"
            elif len(self.among) == 1:
                chosen[layer] = self.among[0]
            else:
                sparse = partial(self.model().sparse, units, nonzeros=nonzeros[layer], workload=self.workload)
                chosen[layer] = min(self.among, key=sparse)
        return chosen

    def seconds(self, network: Network, nonzeros: Mapping[str, int]) -> float:
        """Seconds of all units of a network, each executed as costs least."""
        executions, model = self(network, nonzeros), self.model()
        return math.fsum(
            model.sparse([unit], executions[unit.layer], unit.nonzeros(nonzeros), self.workload)
            for unit in network.units
        )


def sparse_work(unit: Unit, execution: Execution, nonzeros: int, workload: Workload) -> Work:
    """The work of a use of a layer in the sparse engine: convolution, batch norm and activation.

    What a DyReLU adds is left out here and in `dense_work`, as it takes neither engine's side.

    The execution is `fused` or `dense`.
    """
    inputs, outputs, plane = _numbers(unit, workload.batch)
    weights = unit.weights
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
    if unit.masked is None:
        return {"unit": 1, "fused": outputs, "fused products": products}
    taps = unit.window.kernel**2
    work["sketch"] = workload.probes * plane * (unit.x.channels * taps + unit.y.channels)
    return work


def dense_work(unit: Unit, workload: Workload) -> Work:
    """The work of a use of a layer in the dense engine, where dense gradients cost the clip nothing extra."""
    _, outputs, plane = _numbers(unit, workload.batch)
    products = unit.weights * plane * _convolutions(unit) / 3
    return {"module": 1, "module numbers": outputs, "convolution": products}


def _numbers(unit: Unit, batch: int) -> tuple[int, int, int]:
    """Numbers of the input, of the output, and of one channel of the output."""
    return math.prod(unit.x.shape) * batch, math.prod(unit.y.shape) * batch, unit.y.height * unit.y.width * batch


def _convolutions(unit: Unit) -> int:
    """Forward, gradient of the weight and, where something is trained before it, gradient of the input."""
    return 2 if unit.x.producer is None else 3
