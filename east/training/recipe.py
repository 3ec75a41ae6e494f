"""The learning rate of Table B.1."""

from decimal import Decimal

from east.config.run import TrainingSpec


def learning_rate(epoch: int, spec: TrainingSpec) -> float:
    """The learning rate of an epoch (counted from 1): lr times the drop factor for each drop epoch that is over."""
    drops = sum(epoch > drop for drop in spec.lr_drop_epochs)
    # In decimals, so that 0.1 dropped twice is 0.001 and not its neighbour.
    return float(Decimal(str(spec.lr)) * Decimal(str(spec.lr_drop_factor)) ** drops)
