"""How each layer is executed, and what a step costs: by counted work, never by a clock.

Both executions of a layer give the same numbers, so the choice between them only decides how long a step takes. The
engine that `auto` trains a run with decides its numbers, so it follows from the run alone.

The coefficients are in nanoseconds of one core of the machine that they were fitted on (`benchmarks/README.md`). Only
their ratios matter, and those are alike on all processors with wide vectors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from east.engine.base import Workload
from east.engine.graph.network import Network, Unit
from east.engine.graph.program import Execution


@dataclass(frozen=True)
class UseCost:
    """What a use of a layer costs, forward and backward.

    Args:
        call: whatever its size.
        number: for each number of its input and of its output.
        product: for each multiply-add of a weight with a number, in each of the three convolutions.
    """

    call: float
    number: float
    product: float


FUSED = UseCost(call=100_000, number=0.26, product=0.14)
ROWS = UseCost(call=100_000, number=0.85, product=0.052)
DENSE = UseCost(call=570_000, number=1.5, product=0.0172)
"""PyTorch's layers, where every weight counts."""

SKETCH = 0.02
"""For each number of input and output that a probe of the clip's sketch looks at, and each kernel position."""


def cheapest(network: Network, nonzeros: Mapping[str, int]) -> dict[str, Execution]:
    """The execution of every masked layer that costs least, summed over the places where it is used."""
    chosen: dict[str, Execution] = {network.head.layer: "rows"}
    for layer, units in network.uses.items():
        fused = math.fsum(_cost(unit, FUSED, unit.nonzeros(nonzeros)) for unit in units)
        rows = math.fsum(_cost(unit, ROWS, unit.nonzeros(nonzeros)) for unit in units)
        chosen[layer] = "rows" if rows < fused else "fused"
    return chosen


def is_sparse_cheaper(network: Network, phases: Sequence[tuple[float, Mapping[str, int]]], workload: Workload) -> bool:
    """Whether a training costs less if only its non-zeros are executed, from the first step to the last.

    A phase is a share of the training, with the non-zeros of the masked layers in it.
    """
    sparse = math.fsum(share * _sparse_step(network, nonzeros, workload) for share, nonzeros in phases)
    whole = math.fsum(share for share, _ in phases)
    # A step that executes all weights; the clip's dense gradients come with it.
    dense = math.fsum(DENSE.call + workload.batch * _cost(unit, DENSE, unit.weights) for unit in network.units)
    return sparse < whole * dense


def _sparse_step(network: Network, nonzeros: Mapping[str, int], workload: Workload) -> float:
    executions = cheapest(network, nonzeros)
    costs = []
    for unit in network.units:
        use = FUSED if executions[unit.layer] == "fused" else ROWS
        costs.append(use.call + workload.batch * _cost(unit, use, unit.nonzeros(nonzeros)))
        if unit.masked is None:
            continue
        plane, taps = unit.y.height * unit.y.width, unit.window.kernel**2
        sketch = SKETCH * plane * (unit.x.channels * taps + unit.y.channels)
        dense = DENSE.product * plane * unit.weights
        costs.append(workload.batch * (workload.probes * sketch + workload.dense * dense))
    return math.fsum(costs)


def _cost(unit: Unit, use: UseCost, weights: int) -> float:
    """What an image adds to the cost of a use of a layer with so many weights."""
    plane = unit.y.height * unit.y.width
    numbers = math.prod(unit.x.shape) + math.prod(unit.y.shape)
    convolutions = 2 if unit.x.producer is None else 3
    return use.number * numbers + use.product * convolutions * weights * plane
