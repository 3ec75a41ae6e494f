"""Networks: descriptions, the modules that follow from them, DyReLU, weight sharing and DCT layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from east.models.build import build_model
    from east.models.described import DescribedNetwork

__all__ = ["DescribedNetwork", "build_model"]

HOMES = {"DescribedNetwork": "east.models.described", "build_model": "east.models.build"}


def __getattr__(name: str) -> Any:
    """Import PyTorch only where a network is built: a plan is checked by descriptions alone."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
