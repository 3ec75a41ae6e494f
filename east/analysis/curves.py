"""How runs went: accuracy by epoch, and what each mask update exchanged, averaged over seeds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from east.config.run import Frozen
from east.training.records import EpochRecord, UpdateRecord, read_records

if TYPE_CHECKING:
    import pandas as pd

Shares = tuple[float | None, ...]
_SHARES = ("dropped", "grown", "blind", "zeros")


class Curve(Frozen):
    """A quantity by epoch; `low` and `high` bound the band of one standard deviation, where there is one."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


class Churn(Frozen):
    """Shares in [0, 1], one for each mask update of a row; None where there is nothing to take a share of."""

    epochs: tuple[float, ...] = Field(description="when, in epochs from the start of training")
    dropped: Shares = Field(description="of the weights active before the update")
    grown: Shares = Field(description="of the weights active after it")
    blind: Shares = Field(description="of the grown weights: those whose gradient was exactly zero")
    zeros: Shares = Field(description="of the weights active before it: those that were exactly zero")
    seeds: int = Field(ge=1)


def read_curve(path: Path, column: str = "test_acc") -> Curve | None:
    """Read one column of a metrics.csv by epoch.

    Args:
        path: The file.
        column: The column to read. Epochs where it is empty or not finite are left out.

    Returns:
        The curve, or None if the file does not exist or has no value of the column.

    Raises:
        EastError: The file is damaged.
    """
    points = [(row.epoch, getattr(row, column)) for row in read_records(path, EpochRecord).checked()]
    known = [(epoch, value) for epoch, value in points if value is not None and math.isfinite(value)]
    if not known:
        return None
    epochs, values = zip(*known, strict=True)
    return Curve(epochs=epochs, values=values)


def mean_curve(curves: Sequence[Curve], spread: Literal["sample", "population"]) -> Curve | None:
    """Average curves of several seeds over the epochs that all of them have.

    Args:
        curves: One curve a seed.
        spread: The standard deviation behind the band, as in `mean_and_std`.

    Returns:
        Mean curve with a band of one standard deviation to either side, without a band for a single seed;
        None if there is no common epoch.
    """
    import pandas as pd

    if not curves:
        return None
    columns = [pd.Series(curve.values, index=curve.epochs) for curve in curves]
    seeds = pd.concat(columns, axis="columns", join="inner").sort_index()
    if seeds.empty:
        return None
    means = seeds.mean(axis="columns")
    deviations = seeds.std(axis="columns", ddof=1 if spread == "sample" else 0)
    band = len(curves) > 1
    return Curve(
        epochs=tuple(seeds.index.tolist()),
        values=tuple(means.tolist()),
        low=tuple((means - deviations).tolist()) if band else None,
        high=tuple((means + deviations).tolist()) if band else None,
    )


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
    from east.analysis.results import read_rows

    updates = read_rows(runs_dir, run_ids, UpdateRecord)
    by_run = updates.groupby("id", sort=False)
    before = by_run["nonzeros"].shift()
    changes = updates.assign(
        place=by_run.cumcount(),
        dropped=_share(updates["dropped"], before),
        grown=_share(updates["grown"], updates["nonzeros"]),
        blind=_share(updates["blind_growth"], updates["grown"]),
        zeros=_share(updates["active_zeros"], before),
    )
    # The first row of a run is not a change: it says what masks the training began with.
    changes = changes[changes["place"] > 0]
    if changes.empty:
        return None
    made = changes.groupby("id", sort=False).size()
    common = changes[changes["place"] <= made.min()]
    shares = common.groupby("place")[list(_SHARES)].mean()
    shortest = str(made.idxmin())
    return Churn(
        epochs=_epochs(common[common["id"] == shortest], read_rows(runs_dir, [shortest], EpochRecord)),
        seeds=len(made),
        **{name: tuple(None if math.isnan(share) else share for share in shares[name].tolist()) for name in _SHARES},
    )


def _epochs(updates: "pd.DataFrame", epochs: "pd.DataFrame") -> tuple[float, ...]:
    """When updates were, in epochs: exactly where metrics.csv says how many steps an epoch has."""
    if epochs.empty:
        return tuple(updates["epoch"].astype(float).tolist())
    first = epochs.iloc[0]
    return tuple((updates["step"] / (first["step"] / first["epoch"])).tolist())


def _share(part: "pd.Series[float]", whole: "pd.Series[float]") -> "pd.Series[float]":
    """NaN where there is nothing to take a share of."""
    return (part / whole.where(whole > 0)).clip(upper=1.0)
