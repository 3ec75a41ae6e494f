"""How far a run can be repeated byte for byte: four classes, from `any processor` to `statistical`."""

from collections.abc import Iterable
from enum import StrEnum


class Reproducibility(StrEnum):
    """Where a run gives the same bytes again, from the strongest class to the weakest."""

    ANY_PROCESSOR = "any processor"
    THIS_PROCESSOR = "this processor, threads and PyTorch"
    THIS_DEVICE = "this device and versions"
    STATISTICAL = "statistical"


def weakest(classes: Iterable[Reproducibility]) -> Reproducibility:
    """The weakest of several classes; the strongest if there are none."""
    order = list(Reproducibility)
    return max(classes, key=order.index, default=Reproducibility.ANY_PROCESSOR)
