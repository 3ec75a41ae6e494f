"""What a file of one's own needs to add to the methods: decorators, types of parameters, and what rules see.

docs/extending.md shows each of them at work.
"""

from east.parameters import Epochs, Fraction, NonNegative, Number, Positive, PositiveInt, Share, Steps
from east.sparse.distribution import Shapes, allocate
from east.sparse.kinds import (
    KINDS,
    claim_form,
    cycle_pattern,
    density_schedule,
    distribution,
    drop_rule,
    growth_rule,
    initial_values,
    learning_rate,
    optimizer,
)
from east.sparse.moment import Moment
from east.sparse.view import Layer, OptimizerStep

__all__ = [
    "KINDS",
    "Epochs",
    "Fraction",
    "Layer",
    "Moment",
    "NonNegative",
    "Number",
    "OptimizerStep",
    "Positive",
    "PositiveInt",
    "Shapes",
    "Share",
    "Steps",
    "allocate",
    "claim_form",
    "cycle_pattern",
    "density_schedule",
    "distribution",
    "drop_rule",
    "growth_rule",
    "initial_values",
    "learning_rate",
    "optimizer",
]
