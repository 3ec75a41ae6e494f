"""From the engine's name in the config to an engine."""

import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from east.engine.auto import AutoEngine, executes_everything
from east.engine.base import Engine
from east.engine.costs.choose import Cheapest
from east.engine.costs.model import CostModel
from east.engine.cuda.available import availability
from east.engine.dense import DenseEngine
from east.engine.sparse import calibration
from east.engine.sparse.buffers import Execution
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.library import KernelsUnavailable
from east.engine.workload import PLAIN, Workload
from east.errors import EastError
from east.models.resnet import ResNet
from east.sparse.active import ActiveWeights

ENGINES = ("auto", "dense", "sparse")
"""The names in the config. `auto` is the fastest one."""

SPARSE_EXECUTIONS: Mapping[str, tuple[Execution, ...]] = {"cpu": ("fused", "tiled"), "cuda": ("fused",)}
"""Device type -> how its sparse engine can execute the non-zeros of a layer alone."""

HEAD_EXECUTION: Mapping[str, Execution] = {"cpu": "tiled", "cuda": "dense"}
"""Device type -> how its sparse engine executes the classifier, which takes next to no time in any way."""


def make_engine(
    name: str,
    model: nn.Module,
    active: Mapping[str, ActiveWeights],
    *,
    numerics: str,
    device: torch.device,
    workload: Workload = PLAIN,
    costs: Callable[[], CostModel] | None = None,
    compiled: bool = False,
) -> Engine:
    """An engine by name; it may lay the weights out anew, and then reads the active weights again.

    `auto` is the dense engine where that is known beforehand: for a network that the sparse engine does not know, and
    where there is no zero to leave out. Where the kernels of the sparse engine are not available, the dense engine
    takes its place, and a line says why.

    Args:
        name: one of `ENGINES`.
        model: the network.
        active: the active weights of its masked layers, by name.
        numerics: `tf32`, `fp32` or `bf16`; only CUDA distinguishes them.
        device: where the network is.
        workload: an average step of the training.
        costs: gives the cost model; that of this machine for all of this if None.
        compiled: let PyTorch compile the network where the dense engine trains it.

    Raises:
        EastError: there is no such engine, or it does not run on the device.
    """
    if name not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of {', '.join(ENGINES)}.")
    alone = SPARSE_EXECUTIONS.get(device.type, ())
    among: tuple[Execution, ...] = alone if name == "sparse" else (*alone, "dense")
    measured = partial(machine_costs, device, numerics, compiled=compiled)
    choose = Cheapest(costs or measured, workload, among, HEAD_EXECUTION.get(device.type, "dense"))
    dense = partial(DenseEngine, model, active, numerics=numerics, device=device, compiled=compiled)
    try:
        if name == "sparse":
            return _sparse_engine(model, active, numerics=numerics, device=device, choose=choose)
        if name == "auto" and alone and isinstance(model, ResNet) and not executes_everything(model, active):
            sparse = _sparse_engine(model, active, numerics=numerics, device=device, choose=choose)
            return AutoEngine(model, active, sparse=sparse, make_dense=partial(dense, lay_out=False), choose=choose)
    except KernelsUnavailable as unavailable:
        print(f"warning: engine {name} falls back to dense: {unavailable}", file=sys.stderr, flush=True)
    return dense()


def machine_costs(device: torch.device, numerics: str, *, compiled: bool = False) -> CostModel:
    """The cost model of this machine, measured where the cache does not hold it.

    Args:
        device: on which steps execute.
        numerics: `tf32`, `fp32` or `bf16`; only CUDA distinguishes them.
        compiled: whether PyTorch compiles the network for the dense engine; likewise.

    Raises:
        KernelsUnavailable: kernels cannot be compiled here.
    """
    if device.type != "cuda":
        return calibration.cost_model()
    _require_triton(device)
    from east.engine.cuda.calibration import cost_model

    return cost_model(device, numerics, compiled)


def _sparse_engine(
    model: nn.Module, active: Mapping[str, ActiveWeights], *, numerics: str, device: torch.device, choose: Cheapest
) -> Engine:
    if device.type != "cuda":
        return SparseEngine(model, active, numerics=numerics, device=device, choose=choose)
    _require_triton(device)
    # Not at the top: it imports Triton, which the CPU does not need.
    from east.engine.cuda.engine import CudaSparseEngine

    return CudaSparseEngine(model, active, numerics=numerics, device=device, choose=choose)


def _require_triton(device: torch.device) -> None:
    found = availability(device)
    if not found.available:
        raise KernelsUnavailable(found.reason)
