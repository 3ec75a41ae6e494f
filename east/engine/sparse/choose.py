"""How each layer is executed by the sparse engine."""

from collections.abc import Callable, Mapping

from east.engine.sparse.buffers import Execution
from east.engine.sparse.network import Network
from east.sparse.active import ActiveWeights

Choose = Callable[[Network, Mapping[str, ActiveWeights]], dict[str, Execution]]
"""From a network and its active weights to the execution of every masked layer."""

FEW_NONZEROS = 6
"""Non-zeros an output channel up to which a fused convolution is the faster one, roughly."""


def by_nonzeros(network: Network, active: Mapping[str, ActiveWeights]) -> dict[str, Execution]:
    """Execute the non-zeros of every layer, and densely only what has a dense part."""
    dense = {unit.layer for unit in network.units if unit.dct is not None}
    if network.head.dct is not None:
        dense.add(network.head.layer)
    return {name: "dense" if name in dense else _sparse(network, name, weights) for name, weights in active.items()}


def _sparse(network: Network, name: str, weights: ActiveWeights) -> Execution:
    few = len(weights.values) <= FEW_NONZEROS * weights.layer.weight.shape[0]
    return "fused" if few and name != network.head.layer else "tiled"
