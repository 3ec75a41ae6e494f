"""The forms that a claim may have. Each says which rows are compared; `east.analysis.claims` says what follows.

A form takes a frame of rows (`claim_rows`) and gives a frame of pairs: the columns `higher` and `lower` have labels of
the rows' index, and `margin`, if it is there, the points by which a pair must differ at least.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from east.config.conditions import Condition, WrittenCondition
from east.parameters import NonNegative, Number
from east.sparse.kinds import claim_form

if TYPE_CHECKING:
    import pandas as pd

NO_AXES = ("table", "label", "settings", "sample", "complete")
"""Columns of a frame of rows that say what a row is, and not how it was trained."""
_PLACE = "place"


@claim_form(paper="EAST, Section C")
def raises(
    rows: "pd.DataFrame",
    *,
    axis: str,
    low: Number | None = None,
    high: Number | None = None,
    apart: tuple[str, ...] = (),
) -> "pd.DataFrame":
    """A larger number on an axis is better, among rows that are alike on all others.

    Args:
        rows: `claim_rows`.
        axis: the axis.
        low: the smaller of two numbers that alone are compared; without, each number with the next.
        high: the larger of them.
        apart: further axes on which two rows need not be alike.
    """
    others = [name for name in rows.columns if name not in (*NO_AXES, axis, *apart)]
    alike = ["table", *others]
    if axis not in rows.columns:
        return _matched(rows.iloc[:0], rows.iloc[:0], alike)
    known = rows[rows[axis].notna()]
    if low is not None and high is not None:
        return _matched(known[known[axis] == high], known[known[axis] == low], alike)
    step = known.groupby(alike, dropna=False)[axis].rank("dense")
    return _matched(known.assign(step=step), known.assign(step=step + 1), [*alike, "step"])


@claim_form
def lowers(
    rows: "pd.DataFrame",
    *,
    axis: str,
    low: Number | None = None,
    high: Number | None = None,
    apart: tuple[str, ...] = (),
) -> "pd.DataFrame":
    """A smaller number on an axis is better, among rows that are alike on all others.

    Args:
        rows: `claim_rows`.
        axis: the axis.
        low: the smaller of two numbers that alone are compared; without, each number with the next.
        high: the larger of them.
        apart: further axes on which two rows need not be alike.
    """
    found = raises(rows, axis=axis, low=low, high=high, apart=apart)
    return found.rename(columns={"higher": "lower", "lower": "higher"})


@claim_form
def beats(rows: "pd.DataFrame", *, row: str, other: str) -> "pd.DataFrame":
    """A row is better than another, wherever a table has both with the same values.

    Args:
        rows: `claim_rows`.
        row: the label of the better one.
        other: the label of the other.
    """
    import pandas as pd

    found = []
    for _, of_table in rows.groupby("table", sort=False):
        higher, lower = (of_table[of_table["label"] == name] for name in (row, other))
        # An axis on which the two are never alike is what tells them apart.
        axes = [name for name in rows.columns if name not in NO_AXES]
        values = {axis: [set(side[axis].dropna()) for side in (higher, lower)] for axis in axes}
        alike = [axis for axis, (first, second) in values.items() if first & second or not first | second]
        found.append(_matched(higher, lower, ["table", *alike]))
    return pd.concat(found)


@claim_form(paper="EAST, Section C")
def above(
    rows: "pd.DataFrame",
    *,
    group: tuple[WrittenCondition, ...],
    other: tuple[WrittenCondition, ...],
    same: tuple[str, ...] = (),
    margin: NonNegative = 0.0,
) -> "pd.DataFrame":
    """Every row of a group is better than every row of another, by more than a margin.

    Args:
        rows: `claim_rows`.
        group: conditions that rows of the better group all meet, such as `pattern!=static`.
        other: conditions that rows of the other group all meet.
        same: axes on which two rows that are compared are alike.
        margin: percentage points.
    """
    pairs = _matched(_those(rows, group), _those(rows, other), ["table", *same])
    return pairs.assign(margin=margin) if margin else pairs


def _those(rows: "pd.DataFrame", conditions: Sequence[str]) -> "pd.DataFrame":
    """The rows that meet all conditions; none where a condition's axis is not there."""
    for written in conditions:
        condition = Condition.read(written)
        if condition.axis not in rows.columns:
            return rows.iloc[:0]
        rows = rows[rows[condition.axis].map(condition.holds).astype(bool)]
    return rows


def _matched(higher: "pd.DataFrame", lower: "pd.DataFrame", alike: list[str]) -> "pd.DataFrame":
    """The pairs of rows that are alike in some columns, where having nothing is alike too; none without a column."""
    if any(name not in higher.columns for name in alike):
        higher, lower, alike = higher.iloc[:0], lower.iloc[:0], ["table"]
    first, second = (side.rename_axis(_PLACE).reset_index()[[_PLACE, *alike]] for side in (higher, lower))
    pairs = first.merge(second, on=alike, suffixes=("_higher", "_lower"))
    named = pairs.rename(columns={f"{_PLACE}_higher": "higher", f"{_PLACE}_lower": "lower"})[["higher", "lower"]]
    return named[named["higher"] != named["lower"]]
