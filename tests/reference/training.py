"""Whole training steps: gradients, clip, optimizer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.reference.network import Network, Step, train
from tests.reference.optimizer import adam, clip_norm, clip_scale, sgd
from tests.reference.sums import Floats


@dataclass(frozen=True)
class Recipe:
    """What a step does with gradients.

    Args:
        limit: of the global norm.
        over: whose gradients count for it beside those of parameters that are not masked: of all weights, of the
            non-zeros, or of all weights as projections estimate them.
        optimizer: its name.
        momentum, nesterov: of SGD.
        decay: of weights.
    """

    limit: float
    over: Literal["all", "nonzeros", "sketch"]
    optimizer: Literal["sgd", "adam", "adamw"]
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0


class Training:
    """A network and the state of its optimizer.

    Attributes:
        network: as the last step left it.
        state: parameter -> momentum, or mean and mean square; of a masked weight, those of its non-zeros.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self.network = network
        self.state: dict[str, list[Floats]] = {}
        self._recipe = recipe
        self._steps = 0

    def step(
        self, images: Floats, labels: NDArray[np.int64], lr: float, signs: Mapping[str, Floats] | None = None
    ) -> Step:
        """Train on one batch; returns its gradients as they were before the clip."""
        over = self._recipe.over
        found = train(self.network, images, labels, dense=over == "all", signs=signs)
        norm = clip_norm([*self._plain(found).values(), *self._masked(found)], found.squared_norms)
        scale = clip_scale(norm, self._recipe.limit)
        self._steps += 1
        parameters = dict(self.network.parameters)
        for name, gradient in self._plain(found).items():
            parameters[name] = self._updated(name, parameters[name], gradient * scale, lr)
        for layer, mask in self.network.masks.items():
            name = f"{layer}.weight"
            weight = parameters[name] = parameters[name].copy()
            weight[mask] = self._updated(name, weight[mask], found.nonzeros[layer] * scale, lr)
        self.network = replace(self.network, parameters=parameters, statistics=found.statistics)
        return found

    def _plain(self, found: Step) -> dict[str, Floats]:
        """The gradients of parameters that are not masked, in order."""
        return {name: found.gradients[name] for name in self.network.parameters if name in found.gradients}

    def _masked(self, found: Step) -> Iterator[Floats]:
        """Those of masked weights that count for the norm, in order."""
        if self._recipe.over != "sketch":
            gradients = found.dense if self._recipe.over == "all" else found.nonzeros
            yield from (gradients[layer] for layer in self.network.masks)

    def _updated(self, name: str, w: Floats, g: Floats, lr: float) -> Floats:
        recipe = self._recipe
        if recipe.optimizer != "sgd":
            state = self.state.get(name, [np.zeros_like(w), np.zeros_like(w)])
            decay = {"decay": recipe.decay, "decoupled": recipe.optimizer == "adamw"}
            w, *self.state[name] = adam(w, g, *state, lr, step=self._steps, **decay)
            return w
        (momentum,) = self.state.get(name, [np.zeros_like(w)])
        constants = {"momentum": recipe.momentum, "nesterov": recipe.nesterov, "decay": recipe.decay}
        w, momentum = sgd(w, g, momentum, lr, **constants)
        self.state[name] = [momentum]
        return w
