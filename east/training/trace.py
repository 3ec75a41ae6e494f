"""trace.csv: digests of a training's whole state at fixed steps, so that two runs compare by their first difference."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from east.errors import EastError
from east.sparse.active import ActiveWeights
from east.training.hooks import Hook
from east.training.records import PARTS, TraceRecord, read_records

if TYPE_CHECKING:
    from east.training.assembly import Assembly, Training
    from east.training.records import UpdateRecord

DIGITS = 32
"""Hexadecimal digits of a digest: 128 bits of SHA-256."""


NOTHING: Mapping[str, Tensor] = MappingProxyType({})


def is_traced(step: int) -> bool:
    """Whether a step has a row whatever else happens at it: 1, 2, 4, 8, ..."""
    return step > 0 and step & (step - 1) == 0


def trace_record(
    model: nn.Module,
    parts: "Assembly",
    step: int,
    epoch: int,
    events: Sequence[str],
    memory: Mapping[str, Tensor] = NOTHING,
) -> TraceRecord:
    """The row of this moment: `step` steps are done; the events say why there is a row.

    What the rules of mask updates keep counts with the masks.

    Only the active entries of a masked weight are read, so the cost grows with the non-zeros.
    """
    masked = {f"{name}.weight": weights for name, weights in parts.active.items()}
    masks = {f"{name}.mask" for name in parts.active}
    parameters = dict(model.named_parameters())
    others = {n: t for n, t in model.state_dict().items() if n not in parameters and n not in masks}
    names = {parameter: name for name, parameter in parameters.items()}
    states = zip(parts.optimizer.state, parts.optimizer.state_dict(), strict=True)
    digests = {
        "weights": _digest(
            parameters
            | {name: weights.to_row_major(weights.values[: weights.count]) for name, weights in masked.items()}
        ),
        "masks": _digest({name: active_positions(weights) for name, weights in parts.active.items()} | dict(memory)),
        "statistics": _digest(others),
        "optimizer": _digest(
            {f"{names[owner]}.{slot}": value for owner, slots in states for slot, value in slots.items()}
        ),
        "clip": _digest({} if parts.clip is None else parts.clip.state_dict()),
    }
    state = hashlib.sha256("".join(digests[part] for part in PARTS).encode()).hexdigest()[:DIGITS]
    return TraceRecord(step, epoch, "+".join(events), state, **digests)


class Tracing(Hook):
    """Records the state at the start, after steps 1, 2, 4, 8, ..., after mask updates and at the end of epochs.

    `rows` begin with those of the attempts before.
    """

    def __init__(self, rows: Sequence[TraceRecord] = ()) -> None:
        self.rows = list(rows)

    def on_begin(self, training: "Training") -> None:
        """Record the start of the run."""
        if not self.rows:
            self.rows.append(trace_record(training.model, training.parts, 0, 0, ["start"]))

    def after_step(self, training: "Training", update: "UpdateRecord | None") -> None:
        """Record a step after which there is a row."""
        step, ends = training.steps_done, training.sums.steps == training.schedule.steps_per_epoch
        happened = {"step": is_traced(step), "update": update is not None, "epoch": ends}
        if events := [event for event, has_happened in happened.items() if has_happened]:
            kept = training.masks.memory.tensors()
            self.rows.append(trace_record(training.model, training.parts, step, training.epoch + 1, events, kept))


def active_positions(weights: ActiveWeights) -> Tensor:
    """Row-major indices of a layer's active weights in ascending order, after the weight's shape; int64.

    Where all are active, the shape stands alone.
    """
    shape = torch.tensor(weights.layer.weight.shape)
    if weights.is_full or weights.positions is None:
        return shape
    return torch.cat((shape, weights.row_major_index(weights.positions[: weights.count]).cpu().sort().values))


def read_trace(path: Path) -> tuple[TraceRecord, ...]:
    """The rows of a trace.csv, at least one.

    Raises:
        EastError: the file is missing, damaged, or another one.
    """
    if not path.exists():
        raise EastError(f"{path} is missing. A training writes it from its first epoch on.")
    found = read_records(path, TraceRecord).checked()
    if not found:
        raise EastError(f"{path} has no rows.")
    return found


@dataclass(frozen=True)
class Comparison:
    """How two traces compare.

    Attributes:
        rows: rows that are the same in both, from the start.
        difference: the first difference in words; None as far as both go.
        ended: how many rows each has.
    """

    rows: int
    difference: str | None
    ended: tuple[int, int]


def compare_traces(one: Sequence[TraceRecord], other: Sequence[TraceRecord]) -> Comparison:
    """Find the first difference of two traces; one that ends earlier, of a run that was stopped, is a prefix."""
    lengths = (len(one), len(other))
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return Comparison(number, _difference(first, second), lengths)
    return Comparison(min(lengths), None, lengths)


def _difference(one: TraceRecord, other: TraceRecord) -> str:
    first, second = (f"step {row.step} in epoch {row.epoch} ({row.event})" for row in (one, other))
    if (one.step, one.epoch, one.event) != (other.step, other.epoch, other.event):
        return f"one records {first} where the other records {second}: they are runs of other settings"
    parts = [part for part in PARTS if getattr(one, part) != getattr(other, part)]
    return f"{first}: {', '.join(parts) or 'state'}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_numbers(tensor))
    return digest.hexdigest()[:DIGITS]


def _numbers(tensor: Tensor) -> bytes:
    """The numbers in row-major order, little-endian, each of them in one way only."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    numbers = tensor.contiguous().cpu().numpy().reshape(-1)
    if numbers.dtype.kind == "f":
        numbers = numbers + 0.0  # a negative zero becomes a positive one
        numbers[np.isnan(numbers)] = np.nan
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()
