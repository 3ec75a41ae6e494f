"""How runs went: accuracy by epoch, and what each mask update exchanged, averaged over seeds."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from east.analysis.sources import Sources
from east.config.run import Frozen
from east.training.records import EpochRecord, UpdateRecord

if TYPE_CHECKING:
    import pandas as pd

_SHARES = ["dropped", "grown", "blind", "zeros"]


class Curve(Frozen):
    """A quantity by epoch; `low` and `high` bound the band of one standard deviation, where there is one."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


def read_curve(sources: Sources, run: str, column: str = "test_acc") -> Curve | None:
    """Read one column of a run's metrics.csv by epoch.

    Args:
        sources: What reads the runs.
        run: Its id.
        column: The column to read. Epochs where it is empty or not finite are left out.

    Returns:
        The curve, or None if the file does not exist or has no value of the column.

    Raises:
        EastError: The file is damaged.
    """
    points = [(row.epoch, getattr(row, column)) for row in sources.rows(run, EpochRecord).checked()]
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
        None if they share no epoch.
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


def row_churn(sources: Sources, run_ids: Sequence[str]) -> "pd.DataFrame | None":
    """The mean churn of some runs, over the updates that all of them made.

    Args:
        sources: What reads the runs.
        run_ids: The seeds of a row; those that recorded no updates are left out.

    Returns:
        A row an update: the `epoch` from the start of training, and shares in [0, 1] of the weights `dropped` and
        `zeros` (exactly zero) among those active before it, `grown` among those active after it, and `blind` (without a
        gradient) among the grown; NaN where there is nothing to take a share of. None if no run recorded any.

    Raises:
        EastError: A file of a run cannot be read.
    """
    from east.analysis.results import read_rows

    updates = read_rows(sources, run_ids, UpdateRecord)
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
    shortest = common[common["id"] == made.idxmin()]
    epochs = read_rows(sources, [str(made.idxmin())], EpochRecord)
    when = shortest["epoch"].astype(float)
    if not epochs.empty:
        # Exactly, as metrics.csv says how many steps an epoch has.
        when = shortest["step"] / (epochs["step"].iloc[0] / epochs["epoch"].iloc[0])
    return common.groupby("place")[_SHARES].mean().assign(epoch=when.to_numpy())


def _share(part: "pd.Series[float]", whole: "pd.Series[float]") -> "pd.Series[float]":
    """NaN where there is nothing to take a share of, so that the part is 0 as well."""
    return part / whole
