"""One table in the four formats, and the step from its view to each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from east.files import write_atomically
from east.render.document import table_document
from east.render.templating import (
    REPORT_FOLDER,
    html_environment,
    latex_environment,
    markdown_environment,
    render,
)
from east.render.view import TableView

Value = str | int | float | None


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
    report_folder: Path = REPORT_FOLDER,
) -> Rendered:
    """Print a table, which may have several parts, in every format.

    Args:
        views: The parts, one under the other.
        columns: The columns of the CSV file.
        records: The rows of the CSV file, unrounded where the printed ones are rounded.
        report_folder: The folder `report`.
    """
    parts = list(views)
    html = render(html_environment(report_folder), "table.html.j2", views=parts)
    return Rendered(
        csv=csv_text(columns, records),
        md=render(markdown_environment(report_folder), "table.md.j2", views=parts),
        tex=render(latex_environment(report_folder), "table.tex.j2", views=parts),
        html=html,
        document=table_document(html, parts[0].label or parts[0].id, report_folder),
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
