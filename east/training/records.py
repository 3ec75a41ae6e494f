"""What a training leaves to read: a row an epoch, a row a mask update, digests, a row of timing an epoch."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from east.files import write_atomically

PARTS = ("weights", "masks", "statistics", "optimizer", "clip")
"""The parts of a training's state that have a digest of their own, the first to look at first."""


@dataclass(frozen=True)
class EpochRecord:
    """A row of metrics.csv: the state after an epoch. Accuracies are percentages.

    Nothing in it depends on the machine's speed, so that a run that was killed and resumed has the same file, byte for
    byte, as one that was not; seconds are in timing.csv.
    """

    epoch: int
    step: int
    lr: float
    density: float
    drop_fraction: float
    beta: float
    train_loss: float
    train_acc: float
    val_acc: float | None
    test_acc: float
    nonzeros: int
    mask_updates: int
    grown: int
    blind_growth: int
    active_zeros: int
    frozen_layers: int
    live_channels: int
    live_weights: int
    dead_branches: int


@dataclass(frozen=True)
class UpdateRecord:
    """A row of updates.csv: the masks after a change, the random ones of the start included (step 0)."""

    step: int
    epoch: int
    kind: str
    density: float
    drop_fraction: float
    nonzeros: int
    dropped: int
    grown: int
    blind_growth: int
    active_zeros: int
    frozen_layers: int
    live_channels: int
    channels: int
    live_weights: int
    reachable_positions: int
    dead_branches: int
    branches: int


@dataclass(frozen=True)
class TraceRecord:
    """A row of trace.csv: the state after an optimizer step and what goes with it.

    A digest is one of tensors: their names in order, types, shapes, and numbers in row-major order, in which -0.0
    counts as 0.0 and every NaN as the same. So it depends neither on how memory is laid out nor on any file format.

    Attributes:
        step: optimizer steps that are done.
        epoch: the epoch of that step.
        event: why there is a row: `start`, `step` (1, 2, 4, 8, ...), `update` of the masks, end of an `epoch`; several
            are joined by a plus sign.
        state: digest of all of the following.
        weights: of all parameters; of masked ones the active weights.
        masks: of the places of active weights.
        statistics: of batch norm's running mean and variance, and whatever else is no parameter.
        optimizer: of its state.
        clip: of the norm that the clip holds.
    """

    step: int
    epoch: int
    event: str
    state: str
    weights: str
    masks: str
    statistics: str
    optimizer: str
    clip: str


@dataclass(frozen=True)
class TimingRecord:
    """A row of timing.csv: how long an attempt spent on an epoch; one that was cut has a row for each part."""

    epoch: int
    seconds: float
    attempt: int


Record = EpochRecord | UpdateRecord | TimingRecord | TraceRecord


def write_records(path: Path, kind: type[Record], rows: Sequence[Record]) -> None:
    """Write rows of one kind as CSV, whole or not at all; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(path, text.getvalue())


def as_dicts(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Rows as plain mappings, for a checkpoint."""
    return [asdict(row) for row in rows]
