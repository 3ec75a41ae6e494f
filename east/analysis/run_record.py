"""The folder of one run as far as it is there and whole: its epochs, its mask updates, its summary."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from east.analysis.summary import Summary, read_summary, summary_path
from east.errors import EastError


@dataclass(frozen=True)
class Records:
    """The rows of a CSV file, in its order, up to the first that is not whole.

    Args:
        names: the columns.
        rows: a text for each column.
        problem: why the rest could not be read, in one sentence; None where all was, or the file is not there.
    """

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    problem: str | None = None

    def texts(self, name: str) -> list[str]:
        """A column as it is; empty texts where the file has no such column."""
        if name not in self.names:
            return [""] * len(self.rows)
        index = self.names.index(name)
        return [row[index] for row in self.rows]

    def numbers(self, name: str) -> list[float | None]:
        """A column of numbers; None where there is none, or one that is not finite."""
        return [_number(text) for text in self.texts(name)]


@dataclass(frozen=True)
class RunRecord:
    """What a run has left.

    Args:
        epochs: metrics.csv, a row an epoch.
        updates: updates.csv, a row a change of the masks.
        summary: of a run that has ended.
        problems: files that cannot be read, a sentence each.
    """

    epochs: Records
    updates: Records
    summary: Summary | None
    problems: tuple[str, ...]


def read_run_record(runs_dir: Path, run_id: str) -> RunRecord:
    """Read the folder of a run, which may be unfinished, damaged or not there at all.

    Args:
        runs_dir: the folder in which each run has a folder named by its id.
        run_id: the run.
    """
    folder = runs_dir / run_id
    epochs, updates = read_records(folder / "metrics.csv"), read_records(folder / "updates.csv")
    problems = [records.problem for records in (epochs, updates) if records.problem]
    summary = None
    path = summary_path(runs_dir, run_id)
    if path.exists():
        try:
            summary = read_summary(path)
        except EastError as error:
            problems.append(str(error))
    return RunRecord(epochs, updates, summary, tuple(problems))


def read_records(path: Path) -> Records:
    """Read a CSV file with a header, as far as it is whole."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Records()
    except OSError as error:
        return Records(problem=f"{path} cannot be read: {error.strerror}.")
    lines = text.splitlines()
    try:
        found = [tuple(row) for row in csv.reader(lines, strict=True)]
    except csv.Error as error:
        return Records(problem=f"{path} is no CSV file: {error}.")
    if not found:
        return Records(problem=f"{path} is empty.")
    names, *rows = found
    whole = next((i for i, row in enumerate(rows) if len(row) != len(names)), len(rows))
    if whole == len(rows) and rows and not text.endswith("\n"):
        whole -= 1
    problem = None if whole == len(rows) else f"{path} is whole only up to line {whole + 1}."
    return Records(names, tuple(rows[:whole]), problem)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
