"""The appendix: one LaTeX document with every table and figure of a plan, for `pdflatex` and nothing else."""

import os
import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path

from east.analysis.aggregate import read_table
from east.analysis.evidence import read_evidence
from east.analysis.provenance import collect_provenance
from east.analysis.sources import Sources
from east.errors import EastError
from east.render.contents import ReportFigure, ReportSection, ReportSpec
from east.render.evidence import evidence_tables
from east.render.names import table_label
from east.render.overview import overview, provenance_rows
from east.render.runs import run_ids
from east.render.templating import Tex, latex_environment, render

GRAPHICS = (".pdf", ".png")
"""Endings of figures that LaTeX reads: pixels, which the workflow makes, unless a PDF made of the SVG lies beside."""

_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")


def appendix_document(spec: ReportSpec, sources: Sources, folder: Path) -> str:
    """The document.

    Args:
        spec: What goes into the report: its tables as LaTeX, its figures as PDF or PNG, as far as they are there.
        sources: What reads tables and runs.
        folder: Where the document will lie, such as `results/paper/tables`.

    Raises:
        EastError: A file that the spec names cannot be read.
    """
    tables = [read_table(section.aggregated, sources) for section in spec.tables if section.aggregated]
    evidence = read_evidence(spec.evidence, sources) if spec.evidence else None
    trained = collect_provenance(run_ids(tables), sources)
    # Tables that the paper does not have get Roman numbers.
    others = chain(_ROMAN, (f"R{number}" for number in count(len(_ROMAN) + 1)))

    def section(heading: str, tables: Iterable[tuple[str, str]], figures: Iterable[ReportFigure]) -> dict[str, object]:
        """A heading, LaTeX of tables with their numbers, and paths of figures with their captions."""
        numbered = [((table_label(name) or next(others)).removeprefix("Table "), Tex(tex)) for name, tex in tables]
        return {"heading": heading, "tables": numbered, "figures": _figures(figures, folder, sources)}

    def written(of: ReportSection) -> dict[str, object]:
        tables = [(of.id, sources.derived(path).decode()) for path in of.downloads if path.suffix == ".tex"]
        return section(of.heading, tables, of.figures)

    compared = evidence_tables(evidence) if evidence else ()
    sections = [
        *(section(table.heading, [(table.name, table.render().tex)], ()) for table in compared),
        *map(written, spec.tables),
        *(section(group.heading, (), group.figures) for group in spec.figures),
        *map(written, [spec.cost] if spec.cost else []),
    ]
    return render(
        latex_environment(),
        "appendix.tex.j2",
        spec=spec,
        overview=overview(tables, evidence.comparisons if evidence else (), trained),
        sections=sections,
        provenance=provenance_rows(spec.facts, trained),
    )


def _figures(figures: Iterable[ReportFigure], folder: Path, sources: Sources) -> list[tuple[Tex, str]]:
    found = []
    for figure in figures:
        path = next((path for ending in GRAPHICS if (path := figure.svg.with_suffix(ending)).exists()), None)
        if path is None:
            continue
        relative = Path(os.path.relpath(path, folder)).as_posix()
        # Other characters than our own figures have in their names would need escaping.
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", relative):
            raise EastError(f"LaTeX cannot read the figure {path}: use letters, digits, _, . and - only.")
        if path.suffix == ".png":  # which the workflow has drawn
            sources.derived(path)
        found.append((Tex(relative), figure.caption))
    return found
