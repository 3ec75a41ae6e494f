"""How much of the masks each update exchanges, and how much of that is blind, as shares averaged over seeds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import Field

from east.analysis.run_record import Records, read_run_record
from east.config.run import Frozen
from east.errors import EastError

Shares = tuple[float | None, ...]


class Churn(Frozen):
    """Shares in [0, 1], one for each mask update of a row; None where there is nothing to take a share of."""

    epochs: tuple[float, ...] = Field(description="when, in epochs from the start of training")
    dropped: Shares = Field(description="of the weights active before the update")
    grown: Shares = Field(description="of the weights active after it")
    blind: Shares = Field(description="of the grown weights: those whose gradient was exactly zero")
    zeros: Shares = Field(description="of the weights active before it: those that were exactly zero")
    seeds: int = Field(ge=1)


def row_churn(runs_dir: Path, run_ids: Sequence[str]) -> Churn | None:
    """The mean churn of some runs, over the updates that all of them made.

    Args:
        runs_dir: The folder in which each run has a folder named by its id.
        run_ids: The seeds of a row; those that recorded no updates are left out.

    Returns:
        None if no run recorded any.

    Raises:
        EastError: A file of a run cannot be read.
    """
    churns = [churn for run in run_ids if (churn := _run_churn(runs_dir, run)) is not None]
    if not churns:
        return None
    shortest = min(churns, key=lambda churn: len(churn.epochs))
    updates = len(shortest.epochs)

    def mean(name: str) -> Shares:
        columns = [getattr(churn, name)[:updates] for churn in churns]
        return tuple(
            fmean(known) if (known := [share for share in shares if share is not None]) else None
            for shares in zip(*columns, strict=True)
        )

    return Churn(
        epochs=shortest.epochs,
        dropped=mean("dropped"),
        grown=mean("grown"),
        blind=mean("blind"),
        zeros=mean("zeros"),
        seeds=len(churns),
    )


def _run_churn(runs_dir: Path, run_id: str) -> Churn | None:
    record = read_run_record(runs_dir, run_id)
    if record.problems:
        raise EastError(record.problems[0])
    updates = record.updates
    steps, nonzeros = updates.numbers("step"), updates.numbers("nonzeros")
    # The first row is not a change: it says what masks the training began with.
    if len(steps) < 2:
        return None
    dropped, grown = updates.numbers("dropped"), updates.numbers("grown")
    blind, zeros = updates.numbers("blind_growth"), updates.numbers("active_zeros")
    after = range(1, len(steps))
    return Churn(
        epochs=_epochs(updates, record.epochs),
        dropped=tuple(_share(dropped[i], nonzeros[i - 1]) for i in after),
        grown=tuple(_share(grown[i], nonzeros[i]) for i in after),
        blind=tuple(_share(blind[i], grown[i]) for i in after),
        zeros=tuple(_share(zeros[i], nonzeros[i - 1]) for i in after),
        seeds=1,
    )


def _epochs(updates: Records, epochs: Records) -> tuple[float, ...]:
    """The updates after the first in epochs: exactly where metrics.csv says how many steps an epoch has."""
    ends = zip(epochs.numbers("step"), epochs.numbers("epoch"), strict=True)
    per_epoch = next((step / epoch for step, epoch in ends if step and epoch), None)
    if per_epoch is None:
        return tuple(epoch or 0.0 for epoch in updates.numbers("epoch")[1:])
    return tuple((step or 0.0) / per_epoch for step in updates.numbers("step")[1:])


def _share(part: float | None, whole: float | None) -> float | None:
    return min(1.0, part / whole) if part is not None and whole else None
