"""How a masked network is executed. An engine changes the time a step takes, never its results beyond rounding."""

from east.engine.base import Engine
from east.engine.choose import engine_name, make_engine

__all__ = ["Engine", "engine_name", "make_engine"]
