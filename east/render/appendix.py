"""The appendix: one LaTeX document with every table and figure of a plan, for `pdflatex` and nothing else."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, read_json
from east.analysis.evidence import Evidence, read_evidence
from east.analysis.provenance import collect_provenance
from east.errors import EastError
from east.files import write_atomically
from east.render.evidence import render_audit, render_claims, render_comparison
from east.render.names import table_label
from east.render.report.overview import overview
from east.render.report.provenance import provenance_rows
from east.render.report.spec import ReportFigure, ReportSection, ReportSpec
from east.render.templating import REPORT_FOLDER, Tex, latex_environment, render

GRAPHICS = (".pdf", ".png")
"""Endings of figures that LaTeX reads: pixels, which the workflow makes, unless a PDF made of the SVG lies beside."""


@dataclass(frozen=True)
class Table:
    """A table of ours in LaTeX, and its number in the paper or among those that the paper does not have."""

    number: str
    tex: Tex


@dataclass(frozen=True)
class Figure:
    """A figure that LaTeX reads, relative to the document."""

    path: Tex
    caption: str


@dataclass(frozen=True)
class Section:
    """Tables and figures under a heading."""

    heading: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def write_appendix(out: Path, spec: ReportSpec, runs_dir: Path, report_folder: Path = REPORT_FOLDER) -> None:
    """Write the document.

    Args:
        out: Such as `results/paper/tables/appendix.tex`.
        spec: What goes into the report: its tables as LaTeX, its figures as PDF or PNG, as far as they are there.
        runs_dir: The folder in which each run has a folder named by its id.
        report_folder: The folder `report` with the templates.

    Raises:
        EastError: A file that the spec names cannot be read.
    """
    tables = [read_json(section.aggregated) for section in spec.tables if section.aggregated]
    evidence = read_evidence(spec.evidence) if spec.evidence else None
    trained = collect_provenance(_run_ids(tables), runs_dir)
    summed_up = overview(tables, evidence.comparisons if evidence else (), trained)
    numbers = _Numbers()
    sections = _evidence_sections(evidence, report_folder, numbers) if evidence else []
    sections += [_section(section, out.parent, numbers) for section in spec.tables]
    sections += [
        Section(heading=group.heading, text=group.text, figures=_figures(group.figures, out.parent))
        for group in spec.figures
    ]
    if spec.cost:
        sections.append(_section(spec.cost, out.parent, numbers))
    document = render(
        latex_environment(report_folder),
        "appendix.tex.j2",
        spec=spec,
        paragraphs=[*spec.introduction, *([summed_up.headline] if summed_up.headline else [])],
        cautions=summed_up.cautions,
        sections=sections,
        provenance=provenance_rows(spec.facts, trained),
    )
    write_atomically(out, document)


class _Numbers:
    """Numbers for tables: the paper's, and Roman ones for those that it does not have."""

    _ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")

    def __init__(self) -> None:
        self._used = 0

    def number(self, table_id: str) -> str:
        label = table_label(table_id)
        if label:
            return label.removeprefix("Table ")
        self._used += 1
        return self._ROMAN[self._used - 1] if self._used <= len(self._ROMAN) else f"R{self._used}"


def _evidence_sections(evidence: Evidence, report_folder: Path, numbers: _Numbers) -> list[Section]:
    parts = (
        ("comparison", "Comparison with the paper", render_comparison),
        ("claims", "The paper's claims", render_claims),
        ("audit", "Audit of the published tables", render_audit),
    )
    return [
        Section(heading=heading, tables=(Table(numbers.number(name), Tex(printed(evidence, report_folder).tex)),))
        for name, heading, printed in parts
    ]


def _section(section: ReportSection, folder: Path, numbers: _Numbers) -> Section:
    files = [path for path in section.downloads if path.suffix == ".tex"]
    tables = tuple(Table(numbers.number(section.id), Tex(_read(path))) for path in files)
    return Section(heading=section.heading, tables=tables, figures=_figures(section.figures, folder))


def _figures(figures: Sequence[ReportFigure], folder: Path) -> tuple[Figure, ...]:
    found = []
    for figure in figures:
        path = next((path for ending in GRAPHICS if (path := figure.svg.with_suffix(ending)).exists()), None)
        if path is not None:
            found.append(Figure(_graphics_path(path, folder), figure.caption))
    return tuple(found)


def _graphics_path(path: Path, folder: Path) -> Tex:
    """The path as LaTeX takes it: names with other characters than our own figures have would need escaping."""
    relative = Path(os.path.relpath(path, folder)).as_posix()
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", relative):
        raise EastError(f"LaTeX cannot read the figure {path}: use letters, digits, _, . and - only.")
    return Tex(relative)


def _run_ids(tables: Sequence[AggregatedGrid | AggregatedMethods]) -> list[str]:
    return [seed.run for table in tables for row in table.rows for seed in row.accuracy.seeds]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EastError(f"The appendix needs {path}, which cannot be read: {error}.") from error
