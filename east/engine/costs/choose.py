"""How each layer is executed by a sparse engine: as costs least."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from east.engine.costs.model import CostModel, Execution
from east.engine.cpu.network import Network, Unit
from east.engine.workload import Workload
from east.sparse.active import ActiveWeights

Choose = Callable[[Network, Mapping[str, ActiveWeights]], dict[str, Execution]]
"""From a network and its active weights to the execution of every masked layer."""


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

    def __call__(self, network: Network, active: Mapping[str, ActiveWeights]) -> dict[str, Execution]:
        """The execution of every masked layer."""
        uses: dict[str, list[Unit]] = {}
        for unit in network.units:
            uses.setdefault(unit.layer, []).append(unit)
        chosen: dict[str, Execution] = {network.head.layer: "dense"}
        return chosen | {
            layer: self._cheapest(units, active[layer].count) if units[0].dct is None else "dense"
            for layer, units in uses.items()
        }

    def seconds(self, network: Network, active: Mapping[str, ActiveWeights]) -> float:
        """Seconds of all units of a network, each executed as costs least."""
        executions, model = self(network, active), self.model()
        return math.fsum(
            model.sparse([unit], executions[unit.layer], active[unit.layer].count, self.workload)
            for unit in network.units
        )

    def _cheapest(self, uses: list[Unit], nonzeros: int) -> Execution:
        if len(self.among) == 1:
            return self.among[0]
        model = self.model()
        return min(self.among, key=lambda execution: model.sparse(uses, execution, nonzeros, self.workload))
