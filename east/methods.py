"""What a file of one's own needs to add to methods and data sets: decorators, types of parameters, and what rules see.

docs/extending.md shows each of them at work.
"""

from east.data.kind import dataset
from east.models.description import Feature
from east.parameters import Epochs, Fraction, NonNegative, Number, Positive, PositiveInt, Share, Steps
from east.sparse.distribution import Shapes, allocate
from east.sparse.kinds import KINDS as OF_METHODS
from east.sparse.kinds import (
    claim_form,
    cycle_pattern,
    density_schedule,
    distribution,
    drop_rule,
    growth_rule,
    initial_values,
    learning_rate,
    network,
    optimizer,
)
from east.sparse.moment import Moment
from east.sparse.view import Layer, OptimizerStep

KINDS = {**OF_METHODS, "dataset": dataset}
"""Name of a decorator -> its registry."""

__all__ = [
    "KINDS",
    "Epochs",
    "Feature",
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
    "dataset",
    "density_schedule",
    "distribution",
    "drop_rule",
    "growth_rule",
    "initial_values",
    "learning_rate",
    "network",
    "optimizer",
]
