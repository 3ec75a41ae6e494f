"""Published numbers in a CSV file of one's own, set beside the rows of a table when the plan is made.

The first line names the columns: `accuracy_mean`, those that tell the rows apart (axes of the table, and `method`, the
label of the row), and as needed `accuracy_std` and `change`. A line is a row. Numbers are as printed, in percent; an
empty field, or `-`, is nothing: a static row has no pattern.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from east.config.conditions import Value, is_written
from east.config.tables import GridRow, PublishedValue
from east.errors import EastError
from east.files import parse_csv, read_regular

_NUMBERS = ("accuracy_mean", "accuracy_std", "change")
_NOTHING = ("", "-")


@dataclass(frozen=True)
class _Line:
    """A line of the file: its number there, and what it says by column."""

    number: int
    texts: Mapping[str, str]


def published_values(path: Path, rows: Sequence[GridRow], axes: Sequence[str]) -> dict[str, PublishedValue]:
    """What a file prints for the rows of a table, by the row's id.

    Args:
        path: of the file.
        rows: of the table.
        axes: that tell them apart, beside their labels.

    Raises:
        EastError: a line for each mistake of the file: with its path and the line.
    """
    lines = _read(path, axes)
    problems: list[str] = []
    found: dict[str, PublishedValue] = {}
    for line in lines:
        try:
            row, value = _row_of(line, rows, axes), _value_of(line)
            if row.id in found:
                raise ValueError("an earlier line is about the same row")
            found[row.id] = value
        except ValueError as error:
            problems.append(f"{path}, line {line.number}: {error}.")
    if problems:
        raise EastError("\n".join(problems))
    by_id = {row.id: row for row in rows}
    return {name: _with_change(value, found.get(by_id[name].reference or "")) for name, value in found.items()}


def _with_change(value: PublishedValue, reference: PublishedValue | None) -> PublishedValue:
    from_means = None if reference is None else value.mean - reference.mean
    return value.model_copy(update={"change_from_means": from_means})


def _read(path: Path, axes: Sequence[str]) -> list[_Line]:
    """The lines of the file, whose columns are those that it may have."""
    try:
        found = parse_csv(read_regular(path), path)
    except OSError as error:
        raise EastError(f"{path} cannot be read: {error.strerror}.") from error
    if found.problem or not found.rows:
        raise EastError(found.problem or f"{path} has no line below its first.")
    names = [name.strip() for name in found.names]
    known = ["method", *axes, *_NUMBERS]
    if unknown := [name for name in names if name not in known]:
        raise EastError(f"{path}, line 1: unknown column '{unknown[0]}'. A column is one of {', '.join(known)}.")
    if "accuracy_mean" not in names:
        raise EastError(f"{path}, line 1: the column accuracy_mean is missing.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise EastError(f"{path}, line 1: the column '{twice[0]}' stands there twice.")
    return [
        _Line(number, dict(zip(names, (text.strip() for text in texts), strict=True)))
        for number, texts in enumerate(found.rows, start=2)
    ]


def _row_of(line: _Line, rows: Sequence[GridRow], axes: Sequence[str]) -> GridRow:
    """The one row that a line is about.

    Raises:
        ValueError: there is none, or there are several.
    """
    told_by = [name for name in ("method", *axes) if name in line.texts]
    found = [row for row in rows if all(_is_on(row, name, line.texts[name]) for name in told_by)]
    if len(found) == 1:
        return found[0]
    if found:
        further = [name for name in ("method", *axes) if name not in line.texts]
        add = f"Add a column that tells them apart: {', '.join(further)}" if further else "Give them other labels"
        raise ValueError(f"{len(found)} rows of the table are so. {add}")
    raise ValueError(f"no row of the table {_why_none(line, rows, told_by)}. Add the row, or take the line out")


def _why_none(line: _Line, rows: Sequence[GridRow], told_by: Sequence[str]) -> str:
    for name in told_by:
        text = line.texts[name]
        if not any(_is_on(row, name, text) for row in rows):
            values = dict.fromkeys(str(_of(row, name)) for row in rows if _of(row, name) is not None)
            return f"has {name} '{text}'; there are {', '.join(values) or 'none'}"
    return f"has {', '.join(f'{name} {line.texts[name]}' for name in told_by if line.texts[name] not in _NOTHING)}"


def _of(row: GridRow, name: str) -> Value:
    if name == "method":
        return row.method
    found: Value = row.values[name] if name in row.values else getattr(row, name)
    return found


def _is_on(row: GridRow, name: str, text: str) -> bool:
    value = _of(row, name)
    return text in _NOTHING if value is None else is_written(text, value)


def _value_of(line: _Line) -> PublishedValue:
    """The numbers of a line.

    Raises:
        ValueError: one is no number, or out of its range.
    """
    mean, std, change = (_number(line, name) for name in _NUMBERS)
    if mean is None:
        raise ValueError("accuracy_mean is missing")
    if not 0 <= mean <= 100:
        raise ValueError(f"accuracy_mean is {mean:g}, and must be between 0 and 100")
    if std is not None and std < 0:
        raise ValueError(f"accuracy_std is {std:g}, and must not be below 0")
    return PublishedValue(mean=mean, std=std, change=change, change_from_means=None)


def _number(line: _Line, name: str) -> float | None:
    text = line.texts.get(name, "").replace("−", "-")
    if text in _NOTHING:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is '{text}', and must be a number")
    return number
