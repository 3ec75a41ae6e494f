"""From the engine's name in the config to an engine."""

from collections.abc import Callable

import torch
from torch import nn

from east.engine.base import Engine
from east.engine.dense import DenseEngine
from east.errors import EastError

ENGINES: dict[str, Callable[..., Engine]] = {"dense": DenseEngine}
"""Engine name in the config -> class."""


def make_engine(name: str, model: nn.Module, *, numerics: str, device: torch.device) -> Engine:
    """An engine by name; `auto` takes the fastest there is for this network and device.

    Raises:
        EastError: there is no such engine.
    """
    choice = "dense" if name == "auto" else name
    if choice not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of auto, {', '.join(ENGINES)}.")
    return ENGINES[choice](model, numerics=numerics, device=device)
