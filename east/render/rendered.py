"""One table in the four formats, and the step from its view to each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from east.files import write_atomically
from east.render.templating import (
    html_environment,
    latex_environment,
    markdown_environment,
    render,
    table_document,
)
from east.render.view import Cell, Column, TableView, ViewRow

Value = str | int | float | None
Row = TypeVar("Row")


@dataclass(frozen=True)
class Rendered:
    """A table in every format; `html` is a fragment without a style sheet, `document` holds it and has one."""

    csv: str
    md: str
    tex: str
    html: str
    document: str

    def write(self, stem: Path) -> tuple[Path, ...]:
        """Write `stem`.csv, .md, .tex and .html.

        Args:
            stem: Folder and name without an ending.

        Returns:
            The files, in that order.
        """
        contents = {"csv": self.csv, "md": self.md, "tex": self.tex, "html": self.document}
        paths = []
        for ending, content in contents.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            write_atomically(path, content)
            paths.append(path)
        return tuple(paths)


def render_views(
    views: Sequence[TableView],
    columns: Sequence[str],
    records: Sequence[Mapping[str, Value]],
) -> Rendered:
    """Print a table, which may have several parts, in every format.

    Args:
        views: The parts, one under the other.
        columns: The columns of the CSV file.
        records: The rows of the CSV file, unrounded where the printed ones are rounded.
    """
    parts = list(views)
    html = render(html_environment(), "table.html.j2", views=parts)
    return Rendered(
        csv=csv_text(columns, records),
        md=render(markdown_environment(), "table.md.j2", views=parts),
        tex=render(latex_environment(), "table.tex.j2", views=parts),
        html=html,
        document=table_document(html, parts[0].label or parts[0].id),
    )


def csv_text(columns: Sequence[str], records: Sequence[Mapping[str, Value]]) -> str:
    """A CSV file with a header; None is an empty field, floats have at most six decimals."""
    import pandas as pd

    rows = [{name: _plain(record.get(name)) for name in columns} for record in records]
    text: str = pd.DataFrame(rows, columns=list(columns)).to_csv(index=False, lineterminator="\n")
    return text


def _plain(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Quantity(Generic[Row]):
    """What a table says of each of its rows.

    Attributes:
        column: Its heading in print; None for what stands in the data alone.
        cell: What is printed of a row.
        data: Columns of the CSV file, each with the unrounded value of a row: a path of attributes, which gives None
            where one on the way is None, or a function.
    """

    column: Column | None
    cell: Callable[[Row], Cell | str] = lambda row: ""
    data: Mapping[str, str | Callable[[Row], Value]] = field(default_factory=dict)

    def record(self, row: Row) -> dict[str, Value]:
        """The data of a row."""
        return {name: _at(row, value) if isinstance(value, str) else value(row) for name, value in self.data.items()}


def view_of(
    quantities: Sequence[Quantity[Row]], rows: Sequence[Row], *, rule_every: int = 0, **keys: object
) -> TableView:
    """The printed quantities of some rows.

    Args:
        quantities: All of the table's.
        rows: What it is about.
        rule_every: A line is drawn after so many rows each; 0 draws none.
        **keys: Further fields of the view.
    """
    printed = [(quantity.column, quantity.cell) for quantity in quantities if quantity.column]
    view_rows = []
    for place, row in enumerate(rows):
        cells = [cell(row) for _, cell in printed]
        view_rows.append(
            ViewRow(
                cells=tuple(Cell(text=cell) if isinstance(cell, str) else cell for cell in cells),
                rule=bool(rule_every and place and place % rule_every == 0),
            )
        )
    columns = tuple(column for column, _ in printed)
    return TableView.model_validate({"columns": columns, "rows": tuple(view_rows), **keys})


def numeric(label: str, group: str = "") -> Column:
    """A column of numbers."""
    return Column(label=label, group=group, align="right")


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value
