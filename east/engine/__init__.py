"""How a masked network is executed. An engine changes the time a step takes, never its results beyond rounding."""

from east.engine.base import Engine, GradientRequest, Gradients
from east.engine.choose import engine_name, make_engine

__all__ = ["Engine", "GradientRequest", "Gradients", "engine_name", "make_engine"]
