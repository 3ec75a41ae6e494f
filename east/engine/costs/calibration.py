"""Fits a cost model to a machine, by timing steps of small networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from east.engine.base import Engine, GradientRequest
from east.engine.costs.model import CostModel, Execution, Kind, Work, dense_work, sparse_work
from east.engine.cpu.network import describe
from east.engine.workload import Workload
from east.models.blocks import BASIC, Parts
from east.models.resnet import ResNet
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import MaskedLayer, masked_layers
from east.sparse.masks import initialise_masks

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A step of a small network: a stem and a block of two convolutions.

    Args:
        width: channels.
        size: height and width of images.
        workload: images, and what is asked for beyond gradients of active weights.
        execution: of every layer in the sparse engine; None for the dense engine.
        per_channel: non-zeros for each output channel of a layer.
    """

    width: int
    size: int
    workload: Workload
    execution: Execution | None
    per_channel: int = 1


@dataclass(frozen=True, eq=False)
class SmallNetwork:
    """The network of a case, with random masks, and a batch for it.

    Args:
        model: the network.
        active: the active weights of its masked layers, by name.
        images: random ones, (N, 3, size, size).
        request: what a step asks for.
        work: what a step of it comes to.
    """

    model: ResNet
    active: dict[str, ActiveWeights]
    images: Tensor
    request: GradientRequest
    work: Work

    @classmethod
    def of(
        cls,
        case: Case,
        device: torch.device,
        take: Callable[[Mapping[str, MaskedLayer]], dict[str, ActiveWeights]] = active_weights,
    ) -> "SmallNetwork":
        """The network of a case, on a device.

        Args:
            case: the case.
            device: where it is executed.
            take: gives the active weights of masked layers.
        """
        model = ResNet(BASIC, (1,), CLASSES, width=case.width, parts=Parts(dct=False, dyrelu=False)).to(device)
        layers = masked_layers(model)
        counts = {
            name: min(case.per_channel * len(layer.weight), layer.weight.numel()) for name, layer in layers.items()
        }
        initialise_masks(layers, counts, seed=0)
        image_shape = (model.in_channels, case.size, case.size)
        work: dict[Kind, float] = {}
        for unit in describe(model, image_shape).units:
            if case.execution is None:
                found = dense_work(unit, case.workload)
            else:
                found = sparse_work(unit, case.execution, counts[unit.layer], case.workload)
            for kind, amount in found.items():
                work[kind] = work.get(kind, 0.0) + amount
        images = torch.randn(case.workload.batch, *image_shape).to(device)
        request = GradientRequest(dense=case.workload.dense > 0, signs=_signs(layers, int(case.workload.probes)))
        return cls(model, take(layers), images, request, work)

    def step(self, engine: Engine) -> None:
        """Forward and backward pass, as an engine executes them."""
        self.model.zero_grad()
        engine.gradients(self.images, lambda logits: logits.square().mean(), self.request)


def fitted_model(timed: Iterable[tuple[Work, float]], kinds: Sequence[Kind]) -> CostModel:
    """The cost model of a machine on which some steps were timed.

    Args:
        timed: of each step its work and its seconds.
        kinds: of work that the model knows; each occurs in some step.
    """
    works, seconds = zip(*timed, strict=True)
    amounts = np.array([[work.get(kind, 0.0) for kind in kinds] for work in works])
    return CostModel(dict(zip(kinds, fit(amounts, np.array(seconds)).tolist(), strict=True)))


def fit(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients x >= 0 that minimise the sum of squares of the relative errors, (work x - seconds) / seconds.

    Args:
        work: (steps, kinds), >= 0; each kind occurs somewhere.
        seconds: (steps,), > 0.
    """
    # Not at the top: it takes long to import, and only where there is no cost model yet.
    from scipy.optimize import nnls

    rows = work / seconds[:, None]
    scale = np.linalg.norm(rows, axis=0)
    fitted: NDArray[np.float64] = nnls(rows / scale, np.ones(len(rows)))[0] / scale
    return fitted


def _signs(layers: Mapping[str, MaskedLayer], probes: int) -> dict[str, Tensor] | None:
    if probes == 0:
        return None
    return {name: torch.ones(probes, len(layer.weight), device=layer.weight.device) for name, layer in layers.items()}
