"""From config.yaml to a list of frozen, validated runs."""

from east.config.files import read_config, validate
from east.config.plan import Plan, load_plan, make_plan
from east.config.run import Run, RunSpec

__all__ = ["Plan", "Run", "RunSpec", "load_plan", "make_plan", "read_config", "validate"]
