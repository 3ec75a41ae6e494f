"""Executes a network: dense, or only the non-zeros."""

from east.engine.arithmetic import Arithmetic
from east.engine.base import CrossEntropy, Engine, GradientRequest, Gradients
from east.engine.choose import make_engine
from east.engine.executed import Executed
from east.engine.workload import Workload

__all__ = [
    "Arithmetic",
    "CrossEntropy",
    "Engine",
    "Executed",
    "GradientRequest",
    "Gradients",
    "Workload",
    "make_engine",
]
