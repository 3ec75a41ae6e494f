"""How a masked network is executed. An engine changes the time a step takes, never its results beyond rounding."""

from east.engine.base import Engine, GradientRequest, Gradients
from east.engine.choose import make_engine
from east.engine.reproducibility import Executed, Reproducibility, weakest
from east.engine.workload import Workload

__all__ = [
    "Engine",
    "Executed",
    "GradientRequest",
    "Gradients",
    "Reproducibility",
    "Workload",
    "make_engine",
    "weakest",
]
