"""Executes a network: dense, or only the non-zeros."""

from east.engine.arithmetic import Arithmetic
from east.engine.base import CrossEntropy, Engine, Executed, GradientRequest, Gradients, KernelsUnavailable, Workload
from east.engine.choose import make_engine

__all__ = [
    "Arithmetic",
    "CrossEntropy",
    "Engine",
    "Executed",
    "GradientRequest",
    "Gradients",
    "KernelsUnavailable",
    "Workload",
    "make_engine",
]
