"""How a masked network is executed. An engine changes the time a step takes, never its results beyond rounding."""

from east.engine.base import Engine, GradientRequest, Gradients
from east.engine.choose import make_engine
from east.engine.executed import Executed
from east.engine.workload import Workload

__all__ = [
    "Engine",
    "Executed",
    "GradientRequest",
    "Gradients",
    "Workload",
    "make_engine",
]
