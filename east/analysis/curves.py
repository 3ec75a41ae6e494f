"""Curves over epochs, read from `metrics.csv` and averaged over seeds."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from east.config.run import Frozen
from east.errors import EastError


class Curve(Frozen):
    """A quantity by epoch; `low` and `high` bound the band of one standard deviation, where there is one."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


def read_curve(path: Path, column: str = "test_acc") -> Curve | None:
    """Read one column of a `metrics.csv` by epoch.

    Args:
        path: The file; a row an epoch.
        column: The column to read. Epochs where it is empty or not finite are left out; where an epoch occurs
            twice, the later row holds.

    Returns:
        The curve, or None if the file does not exist or has no value of the column.

    Raises:
        EastError: The file has no such column, or holds something that is not a number.
    """
    if not path.exists():
        return None
    points: dict[int, float] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        names = reader.fieldnames or []
        if "epoch" not in names or column not in names:
            raise EastError(f"{path} has no column `epoch` or no column `{column}`.")
        for row in reader:
            try:
                epoch, value = int(row["epoch"]), float(row[column] or "nan")
            except (TypeError, ValueError) as error:
                raise EastError(f"{path}, line {reader.line_num}: {error}.") from error
            if math.isfinite(value):
                points[epoch] = value
    if not points:
        return None
    epochs = tuple(sorted(points))
    return Curve(epochs=epochs, values=tuple(points[epoch] for epoch in epochs))


def mean_curve(curves: Sequence[Curve], spread: Literal["sample", "population"]) -> Curve | None:
    """Average curves of several seeds over the epochs that all of them have.

    Args:
        curves: One curve a seed.
        spread: The standard deviation behind the band, as in `mean_and_std`.

    Returns:
        Mean curve with a band of one standard deviation to either side, without a band for a single seed;
        None if there is no common epoch.
    """
    if not curves:
        return None
    by_epoch = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves]
    epochs = tuple(sorted(set.intersection(*(set(points) for points in by_epoch))))
    if not epochs:
        return None
    seeds = np.array([[points[epoch] for epoch in epochs] for points in by_epoch])
    means = seeds.mean(axis=0)
    if len(curves) < 2:
        return Curve(epochs=epochs, values=tuple(means.tolist()))
    deviations = seeds.std(axis=0, ddof=1 if spread == "sample" else 0)
    return Curve(
        epochs=epochs,
        values=tuple(means.tolist()),
        low=tuple((means - deviations).tolist()),
        high=tuple((means + deviations).tolist()),
    )
