"""From the engine's name in the config to an engine."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from east.engine.base import PLAIN, Engine, KernelsUnavailable, Workload
from east.engine.cpu.cost import cheapest
from east.engine.cpu.engine import CpuEngine
from east.engine.cuda.auto import AutoEngine
from east.engine.cuda.available import triton_status
from east.engine.cuda.cost import Cheapest, CostModel
from east.engine.dense import DenseEngine
from east.engine.graph.network import executes_everything, is_described
from east.engine.graph.program import Execution
from east.errors import EastError
from east.models.dct import has_dct
from east.sparse.active import ActiveWeights

LOG = logging.getLogger(__name__)

ENGINES = ("auto", "dense", "sparse")
"""The names in the config. `auto` is the one that is right for the run."""

ONLY_SPARSE = "On a CPU, numerics: bf16 is what the sparse engine keeps activations in, which does not train this run."


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
    """An engine by name; it may lay the weights out in another way, and then reads the active weights again.

    On a CPU `auto` is the sparse engine for each network that it knows and that has a zero to leave out, from the first
    step to the last; on a GPU, what costs less with the current masks. Where the kernels of the sparse engine are
    not available, the dense engine takes its place, and a line says why and what is lost.

    Args:
        name: one of `ENGINES`.
        model: the network.
        active: the active weights of its masked layers, by name.
        numerics: `tf32`, `fp32` or `bf16`; on a CPU the first two are one, and `bf16` is the sparse engine's alone.
        device: where the network is.
        workload: an average step of the training; only a GPU's `auto` looks at it.
        costs: gives the GPU's cost model; that of this machine if None.
        compiled: let PyTorch compile the network where the dense engine trains it.

    Raises:
        EastError: there is no such engine, or it does not run on the device.
    """
    if name not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of {', '.join(ENGINES)}.")
    dense = partial(DenseEngine, model, active, numerics=numerics, device=device, compiled=compiled)
    known = is_described(model) and not executes_everything(model, active)
    try:
        if device.type == "cpu" and (name == "sparse" or (name == "auto" and known and not has_dct(model))):
            return CpuEngine(model, active, device=device, choose=cheapest, numerics=numerics)
        if device.type == "cuda" and (name == "sparse" or (name == "auto" and known)):
            among: tuple[Execution, ...] = ("fused",) if name == "sparse" else ("fused", "dense")
            measured = partial(machine_costs, device, numerics, compiled=compiled)
            choose = Cheapest(costs or measured, workload, among)
            _require_triton(device)
            # Not at the top: it imports Triton, which the CPU does not need.
            from east.engine.cuda.engine import CudaEngine

            sparse = CudaEngine(model, active, numerics=numerics, device=device, choose=choose)
            if name == "sparse":
                return sparse
            return AutoEngine(model, active, sparse=sparse, make_dense=partial(dense, lay_out=False), choose=choose)
        if name == "sparse":
            raise EastError(f"the sparse engine runs on a CPU or on CUDA, not on {device.type}; use engine: dense.")
    except KernelsUnavailable as unavailable:
        if device.type == "cpu" and numerics == "bf16":
            raise EastError(f"{ONLY_SPARSE} {unavailable}") from unavailable
        lost = "; its numbers will not be the same on other processors" if device.type == "cpu" else ""
        LOG.warning("engine %s falls back to dense%s: %s", name, lost, unavailable)
    if device.type == "cpu" and numerics == "bf16":
        raise EastError(f"{ONLY_SPARSE} Set readings.numerics to tf32 or fp32, or leave out DCT and `engine: dense`.")
    return dense()


def machine_costs(device: torch.device, numerics: str, *, compiled: bool = False) -> CostModel:
    """The cost model of this machine's GPU, measured where the cache does not hold it.

    Raises:
        KernelsUnavailable: kernels cannot be compiled here.
    """
    _require_triton(device)
    from east.engine.cuda.calibration import cost_model

    return cost_model(device, numerics, compiled)


def _require_triton(device: torch.device) -> None:
    found = triton_status(device)
    if not found.available:
        raise KernelsUnavailable(found.reason)
