"""The engine that executes a network by the sparse engine or by the dense one, as costs less with the masks it has."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from east.engine.base import Engine, GradientRequest, Gradients
from east.engine.dense import DenseEngine
from east.engine.sparse.choose import Cheapest
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.network import describe
from east.models.dct import DCTConv2d, DCTLinear
from east.sparse.active import ActiveWeights


class AutoEngine:
    """Decides after every change of the masks, when the next images come.

    Layers that the sparse engine executes may be fused, tiled or dense. Weights keep their contiguous layout whatever
    is decided, as everything that knows their active ones goes by it.

    Args:
        model: a network of `east.models`, on the CPU, in float32 or float64.
        active: the active weights of its masked layers, by name.
        numerics: only CUDA distinguishes them.
        device: where the network is.
        choose: how layers are executed in the sparse engine; its model decides between engines as well.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
        EastError: the network is not on the CPU.
    """

    name = "auto"

    def __init__(
        self,
        model: nn.Module,
        active: Mapping[str, ActiveWeights],
        *,
        numerics: str,
        device: torch.device,
        choose: Cheapest,
    ) -> None:
        self.model = model
        self.active = active
        self._choose = replace(choose, among=("fused", "tiled", "dense"))
        self._sparse = SparseEngine(model, active, numerics=numerics, device=device, choose=self._choose)
        self._dense = DenseEngine(model, active, numerics=numerics, device=device, lay_out=False)
        self._decided: Engine | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), in the mode that the network is in."""
        return self.decide(images)(images)

    def gradients(self, images: Tensor, criterion: Callable[[Tensor], Tensor], request: GradientRequest) -> Gradients:
        """Forward and backward pass of one batch, in training mode."""
        return self.decide(images).gradients(images, criterion, request)

    def masks_changed(self) -> None:
        """Decide anew before the next step."""
        self._decided = None
        self._sparse.masks_changed()

    def decide(self, images: Tensor) -> Engine:
        """The engine that executes the network with the masks it has; only the images' size counts."""
        if self._decided is None:
            self._decided = self._sparse if self._is_sparse_cheaper(images) else self._dense
        return self._decided

    def _is_sparse_cheaper(self, images: Tensor) -> bool:
        if executes_everything(self.model, self.active):
            return False
        _, channels, height, width = images.shape
        network = describe(self.model, (channels, height, width))
        executions = self._choose(network, self.active)
        model, workload = self._choose.model(), self._choose.workload
        sparse = [
            model.sparse([unit], executions[unit.layer], len(self.active[unit.layer].values), workload)
            for unit in network.units
        ]
        return math.fsum(sparse) < model.dense(network.units, workload)


def executes_everything(model: nn.Module, active: Mapping[str, ActiveWeights]) -> bool:
    """Whether there is no zero to leave out: each masked layer has a full mask or a dense part."""
    within = {module.sparse for module in model.modules() if isinstance(module, DCTConv2d | DCTLinear)}
    return all(weights.positions is None or weights.layer in within for weights in active.values())
