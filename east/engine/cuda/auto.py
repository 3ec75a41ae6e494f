"""The engine that executes a network by a sparse engine or by the dense one, as costs less with the masks it has."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from east.engine.arithmetic import PyTorchArithmetic
from east.engine.base import Engine, Executed, GradientRequest, Gradients
from east.engine.cuda.cost import Cheapest
from east.engine.graph.network import executes_everything, network_of
from east.reproducibility import weakest
from east.sparse.active import ActiveWeights


class AutoEngine:
    """Decides after every change of the masks, when the next images come.

    Layers that the sparse engine executes may be executed densely there as well. Weights keep the layout that the
    sparse engine has given them whatever is decided, as the positions of active weights depend on it.

    Args:
        model: a network of `east.models`.
        active: the active weights of its masked layers, by name.
        sparse: executes the network where that costs less; it chooses how to execute each layer by `choose`.
        make_dense: gives the engine that executes it otherwise, once that is so; it leaves the weights laid out as
            they are.
        choose: how layers are executed in the sparse engine; its model decides between engines as well.
    """

    name = "auto"

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        sparse: Engine,
        make_dense: Callable[[], Engine],
        choose: Cheapest,
    ) -> None:
        self.model = model
        self.active = active
        self.arithmetic = PyTorchArithmetic()
        self._sparse = sparse
        self._make_dense = make_dense
        self._dense: Engine | None = None
        self._choose = choose
        self._decided: Engine | None = None
        self._has_executed: dict[str, Engine] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in."""
        return self.decide(images)(images)

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode."""
        return self.decide(images).gradients(images, criterion, request)

    def masks_changed(self) -> None:
        """Decide again before the next step."""
        self._decided = None
        self._sparse.masks_changed()

    def signature(self, images: Tensor) -> Hashable:
        """The engine that executes such images, and what a step depends on there."""
        decided = self.decide(images)
        return decided.name, decided.signature(images)

    def executed(self) -> Executed:
        """What the engines have executed for which it has decided, together."""
        engines = self._has_executed or {self._sparse.name: self._sparse}
        found = [engine.executed() for _, engine in sorted(engines.items(), reverse=True)]
        kinds = sorted({kind for each in found for kind in each.executions})
        least = weakest(each.reproducibility for each in found)
        return replace(
            found[0],
            engine=" and ".join(each.engine for each in found),
            reproducibility=least,
            # Of the engine whose bytes depend on it.
            instruction_set=next(each.instruction_set for each in found if each.reproducibility == least),
            # The dense engine executes every layer, so a layer that both executed densely counts once.
            executions={kind: max(each.executions.get(kind, 0) for each in found) for kind in kinds},
        )

    def decide(self, images: Tensor) -> Engine:
        """The engine that executes the network with the masks it has; only the images' size counts."""
        if self._decided is None:
            if self._is_sparse_cheaper(images):
                self._decided = self._sparse
            else:
                self._decided = self._dense = self._dense or self._make_dense()
            self._has_executed[self._decided.name] = self._decided
        return self._decided

    def _is_sparse_cheaper(self, images: Tensor) -> bool:
        if executes_everything(self.model, self.active):
            return False
        _, channels, height, width = images.shape
        network = network_of(self.model, (channels, height, width))
        nonzeros = {name: weights.count for name, weights in self.active.items()}
        model, workload = self._choose.model(), self._choose.workload
        return self._choose.seconds(network, nonzeros) < model.dense(network.units, workload)
