"""From the engine's name in the config to an engine."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from east.engine.base import Engine
from east.engine.dense import DenseEngine
from east.errors import EastError
from east.sparse.active import ActiveWeights

ENGINES: dict[str, Callable[..., Engine]] = {"dense": DenseEngine}
"""Engine name in the config -> class."""


def engine_name(name: str) -> str:
    """The engine that a name in the config stands for; `auto` is the fastest there is.

    Raises:
        EastError: there is no such engine.
    """
    choice = "dense" if name == "auto" else name
    if choice not in ENGINES:
        raise EastError(f"there is no engine '{name}'. Choose one of auto, {', '.join(ENGINES)}.")
    return choice


def make_engine(
    name: str, model: nn.Module, active: Mapping[str, ActiveWeights], *, numerics: str, device: torch.device
) -> Engine:
    """An engine by name; it may lay the weights out anew, and then reads the active weights again.

    Raises:
        EastError: there is no such engine.
    """
    return ENGINES[engine_name(name)](model, active, numerics=numerics, device=device)
