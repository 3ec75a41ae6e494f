"""The appendix: one LaTeX document with every table and figure of a plan, for `pdflatex` and nothing else."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from east.analysis.aggregate import read_json
from east.analysis.evidence import read_evidence
from east.analysis.provenance import collect_provenance
from east.errors import EastError
from east.files import write_atomically
from east.render.contents import ReportFigure, ReportSection, ReportSpec
from east.render.evidence import evidence_tables
from east.render.names import table_label
from east.render.overview import overview, provenance_rows
from east.render.runs import run_ids
from east.render.templating import Tex, latex_environment, read_text, render

GRAPHICS = (".pdf", ".png")
"""Endings of figures that LaTeX reads: pixels, which the workflow makes, unless a PDF made of the SVG lies beside."""

_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")


@dataclass(frozen=True)
class Section:
    """Tables and figures under a heading: LaTeX by the number of the table, captions by the path of the figure."""

    heading: str
    tables: tuple[tuple[str, Tex], ...] = ()
    figures: tuple[tuple[Tex, str], ...] = ()


def write_appendix(out: Path, spec: ReportSpec, runs_dir: Path) -> None:
    """Write the document.

    Args:
        out: Such as `results/paper/tables/appendix.tex`.
        spec: What goes into the report: its tables as LaTeX, its figures as PDF or PNG, as far as they are there.
        runs_dir: The folder in which each run has a folder named by its id.

    Raises:
        EastError: A file that the spec names cannot be read.
    """
    tables = [read_json(section.aggregated) for section in spec.tables if section.aggregated]
    evidence = read_evidence(spec.evidence) if spec.evidence else None
    trained = collect_provenance(run_ids(tables), runs_dir)
    number = _numbering()

    def section(of: ReportSection) -> Section:
        files = [path for path in of.downloads if path.suffix == ".tex"]
        parts = tuple((number(of.id), Tex(read_text(path))) for path in files)
        return Section(of.heading, parts, _figures(of.figures, out.parent))

    sections = [
        Section(table.heading, ((number(table.name), Tex(table.render().tex)),))
        for table in (evidence_tables(evidence) if evidence else ())
    ]
    sections += map(section, spec.tables)
    sections += [Section(group.heading, figures=_figures(group.figures, out.parent)) for group in spec.figures]
    sections += [section(spec.cost)] if spec.cost else []
    document = render(
        latex_environment(),
        "appendix.tex.j2",
        spec=spec,
        overview=overview(tables, evidence.comparisons if evidence else (), trained),
        sections=sections,
        provenance=provenance_rows(spec.facts, trained),
    )
    write_atomically(out, document)


def _numbering() -> Callable[[str], str]:
    """Numbers for tables: the paper's, and Roman ones for those that it does not have."""
    others = chain(_ROMAN, (f"R{number}" for number in count(len(_ROMAN) + 1)))

    def number(table: str) -> str:
        label = table_label(table)
        return label.removeprefix("Table ") if label else next(others)

    return number


def _figures(figures: Iterable[ReportFigure], folder: Path) -> tuple[tuple[Tex, str], ...]:
    found = []
    for figure in figures:
        path = next((path for ending in GRAPHICS if (path := figure.svg.with_suffix(ending)).exists()), None)
        if path is not None:
            found.append((_graphics_path(path, folder), figure.caption))
    return tuple(found)


def _graphics_path(path: Path, folder: Path) -> Tex:
    """The path as LaTeX takes it: names with other characters than our own figures have would need escaping."""
    relative = Path(os.path.relpath(path, folder)).as_posix()
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", relative):
        raise EastError(f"LaTeX cannot read the figure {path}: use letters, digits, _, . and - only.")
    return Tex(relative)
