"""From the engine's name in the config to an engine."""

import sys
from collections.abc import Callable, Mapping

import torch
from torch import nn

from east.engine.auto import AutoEngine, executes_everything
from east.engine.base import Engine
from east.engine.dense import DenseEngine
from east.engine.sparse.choose import Cheapest
from east.engine.sparse.cost_cache import cost_model
from east.engine.sparse.cost_model import CostModel
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.library import KernelsUnavailable
from east.engine.workload import PLAIN, Workload
from east.errors import EastError
from east.models.resnet import ResNet
from east.sparse.active import ActiveWeights

ENGINES = ("auto", "dense", "sparse")
"""The names in the config. `auto` is the fastest one."""


def make_engine(
    name: str,
    model: nn.Module,
    active: Mapping[str, ActiveWeights],
    *,
    numerics: str,
    device: torch.device,
    workload: Workload = PLAIN,
    costs: Callable[[], CostModel] = cost_model,
) -> Engine:
    """An engine by name; it may lay the weights out anew, and then reads the active weights again.

    `auto` is the dense engine where that is known beforehand: on a GPU, for a network that the sparse engine does not
    know, and where there is no zero to leave out. Where the kernels of the sparse engine are not available, the dense
    engine takes its place, and a line says why.

    Args:
        name: one of `ENGINES`.
        model: the network.
        active: the active weights of its masked layers, by name.
        numerics: `tf32`, `fp32` or `bf16`; only CUDA distinguishes them.
        device: where the network is.
        workload: an average step of the training.
        costs: gives the cost model of this machine.

    Raises:
        EastError: there is no such engine, or it does not run on the device.
    """
    if name not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of {', '.join(ENGINES)}.")
    choose = Cheapest(costs, workload)
    try:
        if name == "sparse":
            return SparseEngine(model, active, numerics=numerics, device=device, choose=choose)
        if name == "auto" and _is_worth_a_choice(model, active, device):
            return AutoEngine(model, active, numerics=numerics, device=device, choose=choose)
    except KernelsUnavailable as unavailable:
        print(f"warning: engine {name} falls back to dense: {unavailable}", file=sys.stderr, flush=True)
    return DenseEngine(model, active, numerics=numerics, device=device)


def _is_worth_a_choice(model: nn.Module, active: Mapping[str, ActiveWeights], device: torch.device) -> bool:
    return device.type == "cpu" and isinstance(model, ResNet) and not executes_everything(model, active)
