"""A table as it is shown, whatever the format: columns, cells, footnotes."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field

from east.config.run import Frozen

Tone = Literal["plain", "missing", "differs"]


class Column(Frozen):
    """A column; columns of one group stand under a common heading."""

    label: str
    group: str = ""
    align: Literal["left", "right", "text"] = Field(default="left", description="`text` is left, and wraps")

    @property
    def full_label(self) -> str:
        """The label with its group, for formats that have one line of headings."""
        return f"{self.group}: {self.label}" if self.group else self.label


class Interval(Frozen):
    """A difference with its interval, in percentage points, which HTML draws over the band of the margin."""

    difference: float
    low: float
    high: float
    margin: float = Field(gt=0, description="half the width of the band")
    reach: float = Field(gt=0, description="where the drawing ends on either side; an interval beyond it is cut there")


class Cell(Frozen):
    """A cell: its text, the marks of its footnotes, and whether something is the matter with it."""

    text: str
    marks: tuple[str, ...] = ()
    tone: Tone = "plain"
    row: str | None = Field(default=None, description="id of the row whose runs the cell sums up, if it does")
    verdict: bool = Field(default=False, description="whether the text is a verdict, which HTML shows with a mark")
    interval: Interval | None = Field(default=None, description="drawn beside the text where drawing is possible")


class ViewRow(Frozen):
    """A row; `rule` draws a line above it, `reference` sets it apart as what others are compared with."""

    cells: tuple[Cell, ...]
    rule: bool = False
    reference: bool = False


class Footnote(Frozen):
    """A footnote and its mark."""

    mark: str
    text: str


class Group(Frozen):
    """A heading over neighbouring columns, counted from 1."""

    label: str
    first: int
    last: int

    @property
    def span(self) -> int:
        """Number of columns."""
        return self.last - self.first + 1


class TableView(Frozen):
    """A table, ready to be printed."""

    id: str
    label: str | None = Field(default=None, description="such as `Table 2`")
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[ViewRow, ...]
    footnotes: tuple[Footnote, ...] = ()
    remarks: tuple[str, ...] = Field(default=(), description="sentences under the table")
    sortable: bool = Field(default=True, description="whether its rows mean the same in any order")

    @property
    def anchor(self) -> str:
        """The id, fit for an HTML id or a LaTeX label."""
        return re.sub("[^A-Za-z0-9]+", "-", self.id)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The headings over columns; columns without one make groups with an empty label."""
        groups: list[Group] = []
        first = 1
        for label, columns in groupby(self.columns, key=lambda column: column.group):
            last = first + len(list(columns)) - 1
            groups.append(Group(label=label, first=first, last=last))
            first = last + 1
        return tuple(groups)

    @property
    def grouped(self) -> bool:
        """Whether any columns stand under a common heading."""
        return any(column.group for column in self.columns)


class Footnotes:
    """Collects footnotes and gives them marks; the same sentence has the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def marks(self, texts: Sequence[str | None]) -> tuple[str, ...]:
        """The marks for these sentences; None and the empty text ask for none."""
        return tuple(self._marks.setdefault(text, letter(len(self._marks))) for text in texts if text)

    def collected(self) -> tuple[Footnote, ...]:
        """All footnotes in the order of their marks."""
        return tuple(Footnote(mark=mark, text=text) for text, mark in self._marks.items())


def letter(index: int) -> str:
    """The mark of a footnote, counted from 0: a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
