"""From the engine's name in the config to an engine."""

from collections.abc import Callable

import torch
from torch import nn

from east.engine.base import Engine
from east.engine.dense import DenseEngine
from east.errors import EastError

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


def make_engine(name: str, model: nn.Module, *, numerics: str, device: torch.device) -> Engine:
    """An engine by name.

    Raises:
        EastError: there is no such engine.
    """
    return ENGINES[engine_name(name)](model, numerics=numerics, device=device)
