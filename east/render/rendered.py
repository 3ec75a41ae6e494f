"""One table in the four formats, and the step from its view to each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from east.cells import guarded
from east.render.templating import (
    html_environment,
    latex_environment,
    markdown_environment,
    render,
    table_document,
)
from east.render.view import Cell, Column, Footnotes, TableView, ViewRow

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

    def contents(self, stem: Path) -> dict[Path, str]:
        """What goes into `stem`.csv, .md, .tex and .html, where `stem` is a folder and a name, in that order."""
        texts = {"csv": self.csv, "md": self.md, "tex": self.tex, "html": self.document}
        return {stem.with_name(f"{stem.name}.{ending}"): text for ending, text in texts.items()}


def render_views(
    views: Sequence[TableView],
    columns: Sequence[str],
    records: Sequence[Mapping[str, Value]],
) -> Rendered:
    """Print a table, which may have several parts, in every format."""
    html = render(html_environment(), "table.html.j2", views=views)
    return Rendered(
        csv=csv_text(columns, records),
        md=render(markdown_environment(), "table.md.j2", views=views),
        tex=render(latex_environment(), "table.tex.j2", views=views),
        html=html,
        document=table_document(html, views[0].label or views[0].id),
    )


def csv_text(columns: Sequence[str], records: Sequence[Mapping[str, Value]]) -> str:
    """A CSV file with a header; None is an empty field, floats have at most six decimals, no text is a formula."""
    import pandas as pd

    frame = pd.DataFrame(list(records), columns=list(columns), dtype=object).map(_plain)
    text: str = frame.to_csv(index=False)
    return text


def _plain(value: Value) -> str:
    if value is None or value != value:  # a record without the column
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else guarded(str(value))


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


def view_of(
    quantities: Sequence[Quantity[Row]],
    rows: Sequence[Row],
    *,
    footnotes: Footnotes | None = None,
    begins: Callable[[Row, Row], bool] = lambda before, row: False,
    reference: Callable[[Row], bool] = lambda row: False,
    **keys: object,
) -> TableView:
    """The printed quantities of some rows.

    Args:
        quantities: All of the table's.
        rows: What it is about.
        footnotes: Where the cells put theirs.
        begins: Whether a row, after the one before, begins a part of the table: a line is drawn above it.
        reference: Whether a row is what others are compared with.
        **keys: Further fields of the view.
    """
    printed = [(quantity.column, quantity.cell) for quantity in quantities if quantity.column]
    view_rows = []
    for place, row in enumerate(rows):
        cells = [cell(row) for _, cell in printed]
        view_rows.append(
            ViewRow(
                cells=tuple(Cell(text=cell) if isinstance(cell, str) else cell for cell in cells),
                rule=place > 0 and begins(rows[place - 1], row),
                reference=reference(row),
            )
        )
    if footnotes is not None:
        keys["footnotes"] = footnotes.collected()
    return TableView.model_validate({"columns": [column for column, _ in printed], "rows": view_rows, **keys})


def data_of(quantities: Sequence[Quantity[Row]], rows: Sequence[Row]) -> tuple[list[str], list[dict[str, Value]]]:
    """Columns and rows of the CSV file of some quantities."""
    values = {name: value for quantity in quantities for name, value in quantity.data.items()}
    records = [
        {name: _at(row, value) if isinstance(value, str) else value(row) for name, value in values.items()}
        for row in rows
    ]
    return list(values), records


def numeric(label: str, group: str = "") -> Column:
    """A column of numbers."""
    return Column(label=label, group=group, align="right")


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value
