"""From the engine's name in the config to an engine."""

import sys
from collections.abc import Mapping

import torch
from torch import nn

from east.engine.base import Engine
from east.engine.dense import DenseEngine
from east.engine.sparse.engine import SparseEngine
from east.engine.sparse.library import KernelsUnavailable
from east.errors import EastError
from east.sparse.active import ActiveWeights

ENGINES = ("auto", "dense", "sparse")
"""The names in the config. `auto` is the faster one."""


def make_engine(
    name: str, model: nn.Module, active: Mapping[str, ActiveWeights], *, numerics: str, device: torch.device
) -> Engine:
    """An engine by name; it may lay the weights out anew, and then reads the active weights again.

    Where the kernels of the sparse engine are not available, the dense one takes its place, and a line says why.

    Raises:
        EastError: there is no such engine, or it does not run on the device.
    """
    if name not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of {', '.join(ENGINES)}.")
    if name == "sparse" or (name == "auto" and device.type == "cpu"):
        try:
            return SparseEngine(model, active, numerics=numerics, device=device)
        except KernelsUnavailable as unavailable:
            print(f"warning: engine {name} falls back to dense: {unavailable}", file=sys.stderr, flush=True)
    return DenseEngine(model, active, numerics=numerics, device=device)
