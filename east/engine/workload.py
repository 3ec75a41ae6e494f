"""What a training asks of its engine step after step, as far as it decides which engine is the faster one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """An average step.

    Args:
        batch: images.
        probes: random signs for each output channel, with which dense gradients are contracted.
        dense: the share of steps, in [0, 1], that need all dense gradients.
    """

    batch: int = 128
    probes: float = 0.0
    dense: float = 0.0


PLAIN = Workload()
"""Steps that need gradients of active weights and no others."""
