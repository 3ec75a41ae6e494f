"""The networks of the paper: ResNets with masked layers, DyReLU, weight sharing and DCT layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from east.models.resnet import ResNet, build_model

__all__ = ["ResNet", "build_model"]


def __getattr__(name: str) -> Any:
    """Import PyTorch only where a network is built: a plan is checked by `east.models.designs` alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("east.models.resnet"), name)
