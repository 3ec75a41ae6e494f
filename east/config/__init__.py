"""From config.yaml to a list of frozen, validated runs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from east.config.files import read_config, validate
    from east.config.plan import Plan, load_plan, make_plan
    from east.config.run import Run, RunSpec

__all__ = ["Plan", "Run", "RunSpec", "load_plan", "make_plan", "read_config", "validate"]

_MODULES = {
    "Plan": "plan",
    "Run": "run",
    "RunSpec": "run",
    "load_plan": "plan",
    "make_plan": "plan",
    "read_config": "files",
    "validate": "files",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for and no more: most jobs of the workflow read runs and tables, but no configuration."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
