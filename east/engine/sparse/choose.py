"""How each layer is executed, and what a step costs: by counted work, never by a clock.

Both executions of a layer give the same numbers, so that the choice between them decides only how long a step takes.
The engine that `auto` trains a run with decides its numbers: it follows from the run alone.
"""

from collections.abc import Callable, Mapping

from east.engine.sparse.buffers import Execution
from east.engine.sparse.network import Network, Unit

Choose = Callable[[Network, Mapping[str, int]], dict[str, Execution]]
"""From a network and the non-zeros of its masked layers to the execution of every layer."""


def cheapest(network: Network, nonzeros: Mapping[str, int]) -> dict[str, Execution]:
    """The execution of every masked layer that costs least, summed over the places where it is used."""
    uses: dict[str, list[Unit]] = {}
    for unit in network.units:
        uses.setdefault(unit.layer, []).append(unit)
    chosen: dict[str, Execution] = {network.head.layer: "rows"}
    for layer, units in uses.items():
        chosen[layer] = "rows" if nonzeros[layer] > 6 * units[0].y.channels else "fused"
    return chosen
