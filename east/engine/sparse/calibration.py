"""Fits the cost model to this machine, by timing steps of small networks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from east.engine.base import Engine, GradientRequest
from east.engine.dense import DenseEngine
from east.engine.sparse.buffers import Execution
from east.engine.sparse.cost_model import KINDS, CostModel, Kind, dense_work, sparse_work
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.network import describe
from east.engine.workload import Workload
from east.models.blocks import BASIC, Parts
from east.models.resnet import ResNet
from east.sparse.active import ActiveWeights, active_weights
from east.sparse.layers import masked_layers
from east.sparse.masks import initialise_masks

CPU = torch.device("cpu")
CLASSES = 10

LEAST_REPETITIONS = 2
SECONDS_A_CASE = 0.01
"""A step is repeated for this long, and at least so often; the fastest counts, as it was disturbed least."""


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


def _cases() -> list[Case]:
    # In the tiny network nothing takes long but the calls. Of two that convolve densely, one has few weights.
    tiny, sparse, few_weights, many_weights = (16, 4), (16, 32), (32, 16), (128, 8)
    return [
        Case(*tiny, Workload(16), "fused"),
        Case(*tiny, Workload(16), None),
        Case(*sparse, Workload(64), "fused", 1),
        Case(*sparse, Workload(64), "fused", 8),
        Case(*sparse, Workload(64), "tiled", 4),
        Case(*sparse, Workload(64), "tiled", 48),
        Case(*sparse, Workload(64, probes=2), "fused", 1),
        Case(*few_weights, Workload(32, dense=1), "fused", 1),
        Case(*few_weights, Workload(32), "dense"),
        Case(*few_weights, Workload(32), None),
        Case(*many_weights, Workload(16), "dense"),
        Case(*many_weights, Workload(16), None),
    ]


def calibrate() -> CostModel:
    """The cost model of this machine, in float32. Takes about half a second.

    One thread is timed, by the time that the processor works for it: what else the machine does counts little then,
    while threads that wait for each other would count much. Engines divide their work among threads alike.

    Raises:
        KernelsUnavailable: the kernels cannot be compiled here.
    """
    with _one_thread(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        timed = [_time(case) for case in _cases()]
    work = np.array([[amounts.get(kind, 0.0) for kind in KINDS] for amounts, _ in timed])
    fitted = fit(work, np.array([seconds for _, seconds in timed]))
    return CostModel(dict(zip(KINDS, fitted.tolist(), strict=True)))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def _time(case: Case) -> tuple[dict[Kind, float], float]:
    """The work of a case's step, and its seconds."""
    model = ResNet(BASIC, (1,), CLASSES, width=case.width, parts=Parts(dct=False, dyrelu=False))
    layers = masked_layers(model)
    counts = {name: min(case.per_channel * len(layer.weight), layer.weight.numel()) for name, layer in layers.items()}
    initialise_masks(layers, counts, seed=0)
    active = active_weights(layers)
    image_shape = (model.in_channels, case.size, case.size)
    images = torch.randn(case.workload.batch, *image_shape)
    work: dict[Kind, float] = {}
    for unit in describe(model, image_shape).units:
        if case.execution is None:
            found = dense_work(unit, case.workload)
        else:
            found = sparse_work(unit, case.execution, counts[unit.layer], case.workload)
        for kind, amount in found.items():
            work[kind] = work.get(kind, 0.0) + amount
    request = GradientRequest(dense=case.workload.dense > 0, signs=_signs(active, int(case.workload.probes)))
    return work, _fastest(model, _engine(case.execution, model, active), images, request)


def _engine(execution: Execution | None, model: ResNet, active: dict[str, ActiveWeights]) -> Engine:
    if execution is None:
        return DenseEngine(model, active, numerics="fp32", device=CPU)
    executions: dict[str, Execution] = dict.fromkeys(active, execution) | {"classifier": "tiled"}
    return SparseEngine(model, active, numerics="fp32", device=CPU, choose=lambda network, active: executions)


def _signs(active: dict[str, ActiveWeights], probes: int) -> dict[str, torch.Tensor] | None:
    if probes == 0:
        return None
    return {name: torch.ones(probes, len(weights.layer.weight)) for name, weights in active.items()}


def _fastest(model: ResNet, engine: Engine, images: torch.Tensor, request: GradientRequest) -> float:
    """Seconds of the fastest of some steps. The first does not count: it takes memory for the first time."""
    seconds: list[float] = []
    while len(seconds) <= LEAST_REPETITIONS or sum(seconds[1:]) < SECONDS_A_CASE:
        model.zero_grad()
        started = time.thread_time()
        engine.gradients(images, lambda logits: logits.square().mean(), request)
        seconds.append(time.thread_time() - started)
    return min(seconds[1:])
