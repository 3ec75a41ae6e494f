"""How many weights each layer of a run had before, during and after training, and how many channels they reach."""

import math
import re
from collections.abc import Callable, Mapping

from pydantic import Field

from east.analysis.aggregate import AggregatedGrid
from east.analysis.sources import Sources
from east.config.run import Frozen
from east.errors import EastError
from east.training.folder import WEIGHTS
from east.training.records import UpdateRecord

MASK = ".mask"

Shapes = Mapping[str, tuple[int, ...]]
Allocate = Callable[[Shapes, int], dict[str, int]]
"""Spreads a number of non-zeros over tensors (`east.sparse.distribution`)."""


class LayerMask(Frozen):
    """One masked tensor: what it holds, and how many of its output channels hold anything."""

    name: str
    weights: int = Field(ge=1, description="active and inactive")
    start: int = Field(ge=0, description="active in the random mask of the start")
    peak: int = Field(ge=0, description="active where the density is highest")
    end: int = Field(ge=0, description="active after training")
    channels: int = Field(ge=1, description="output channels")
    connected_start: float = Field(ge=0, description="of them with an active weight, the mean over random masks")
    connected_end: int = Field(ge=0, description="of them with an active weight after training")


def runs_to_show(table: AggregatedGrid) -> list[str]:
    """Two runs to look into: the first finished seed of the static row, and of the row that rises highest.

    Weights are large, so no figure reads them all.
    """
    static = [row for row in table.rows if row.pattern is None]
    cyclic = sorted((row for row in table.rows if row.multiplier is not None), key=lambda row: -(row.multiplier or 0))
    finished = [[row for row in rows if row.accuracy.used] for rows in (static, cyclic)]
    return [rows[0].accuracy.with_status("finished")[0].run for rows in finished if rows]


def read_layers(sources: Sources, run: str, allocate: Allocate) -> tuple[LayerMask, ...]:
    """The masked layers of a finished run in the order of the network; none where its weights are not on disk.

    The masks of the end are read; those of the start are counted from the rule that drew them.

    Raises:
        EastError: The weights, or the record of mask updates, cannot be read.
    """
    updates = sources.rows(run, UpdateRecord)
    weights = sources.weights(run)
    nonzeros = [row.nonzeros for row in updates.rows]
    if weights is None or not nonzeros:
        updates.checked()
        return ()
    masks = _read_masks(weights, run)
    shapes = {name: shape for name, (shape, _, _) in masks.items()}
    start, peak = (allocate(shapes, count) for count in (nonzeros[0], max(nonzeros)))
    return tuple(
        LayerMask(
            name=name,
            weights=math.prod(shape),
            start=start[name],
            peak=peak[name],
            end=end,
            channels=shape[0],
            connected_start=shape[0] * _connected(math.prod(shape), shape[0], start[name]),
            connected_end=connected,
        )
        for name, (shape, end, connected) in masks.items()
    )


def _read_masks(weights: bytes, run: str) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Name -> shape, active weights, output channels that have any."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise EastError(f"{run}/{WEIGHTS} cannot be read: {error}.") from error
    masks = {}
    for key, mask in tensors.items():
        if key.endswith(MASK):
            connected = int(mask.reshape(len(mask), -1).any(axis=1).sum())
            masks[key.removesuffix(MASK)] = (mask.shape, int(mask.sum()), connected)
    return {name: masks[name] for name in sorted(masks, key=lambda name: _place(name, masks[name][0]))}


def _place(name: str, shape: tuple[int, ...]) -> tuple[bool, list[int | str]]:
    """Sorts layers as the network has them: convolutions by the numbers in their names, the classifier last."""
    # Every second part is a number, so that like is compared with like.
    return len(shape) == 2, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _connected(weights: int, channels: int, active: int) -> float:
    """Probability that an output channel has a weight, where `active` of `weights` are drawn at random."""
    others = weights - weights // channels
    if active > others:
        return 1.0
    none = math.lgamma(others + 1) - math.lgamma(others - active + 1)
    return 1 - math.exp(none - math.lgamma(weights + 1) + math.lgamma(weights - active + 1))
