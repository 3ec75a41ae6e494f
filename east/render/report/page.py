"""The report: one self-contained HTML page with what was run, how it stands to the paper, and where it comes from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, read_json
from east.analysis.evidence import read_evidence
from east.files import write_atomically
from east.render.document import content_security_policy, table_in
from east.render.report.embed import Download, Image, download, image, read
from east.render.report.evidence import (
    audited_tables,
    claim_view,
    compared_table,
    how_rows_are_compared,
    rows_by_table,
)
from east.render.report.overview import overview
from east.render.report.provenance import provenance_rows
from east.render.report.runs import provenance, read_runs
from east.render.report.seeds import RowDetails, row_details
from east.render.report.spec import ReportSection, ReportSpec
from east.render.tables import grid_view, methods_view
from east.render.templating import REPORT_FOLDER, html_environment, render
from east.render.view import TableView


@dataclass(frozen=True)
class Section:
    """A table of the page; `details` are what its cells open."""

    id: str
    heading: str
    table: Markup | None
    details: tuple[RowDetails, ...]
    downloads: tuple[Download, ...]
    figures: tuple[Image, ...]


@dataclass(frozen=True)
class Figures:
    """Figures of the page under a heading."""

    heading: str
    text: str
    figures: tuple[Image, ...]


def write_report(out: Path, spec: ReportSpec, runs_dir: Path, report_folder: Path = REPORT_FOLDER) -> None:
    """Write the report as one file, which loads nothing and runs no script but its own.

    Args:
        out: The page, such as `results/demo/report/index.html`.
        spec: What goes into it.
        runs_dir: The folder in which each run has a folder named by its id.
        report_folder: The folder `report` with the templates, the style sheet and the script.

    Raises:
        EastError: A file that the spec names, or one of a run, cannot be read.
    """
    tables = {section.id: read_json(section.aggregated) for section in spec.tables if section.aggregated}
    evidence = read_evidence(spec.evidence) if spec.evidence else None
    comparisons = evidence.comparisons if evidence else ()
    outcomes = read_runs(_run_ids(tables.values()), runs_dir)
    trained = provenance(outcomes)
    compared = rows_by_table(comparisons)
    details = {
        place: row_details(table, outcomes, compared.get(place, {}), runs_dir=runs_dir, logs_dir=spec.logs)
        for place, table in tables.items()
    }
    environment = html_environment(report_folder)
    fragments = {
        place: render(environment, "table.html.j2", views=[_view(table, report_folder)], details=details[place])
        for place, table in tables.items()
    }
    style, script = read(report_folder / "style.css"), read(report_folder / "script.js")
    page = render(
        environment,
        "report.html.j2",
        spec=spec,
        policy=content_security_policy(style, script),
        # Our own files, whose text the policy names.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        overview=overview(list(tables.values()), comparisons, trained),
        sections=[_section(section, fragments.get(section.id), details.get(section.id, {})) for section in spec.tables],
        details=details,
        comparisons=[
            compared_table(comparison, table)
            for comparison in comparisons
            if isinstance(table := tables.get(comparison.table), AggregatedGrid)
        ],
        evidence_files={part: tuple(map(download, files)) for part, files in spec.evidence_files.items()},
        how=how_rows_are_compared(evidence.comparing) if evidence else "",
        claims=[claim_view(claim) for claim in evidence.claims] if evidence else [],
        audit=audited_tables(evidence.audit) if evidence else [],
        figures=[
            Figures(heading=group.heading, text=group.text, figures=tuple(map(image, group.figures)))
            for group in spec.figures
        ],
        cost=_section(spec.cost, None, {}) if spec.cost else None,
        provenance=provenance_rows(spec.facts, trained),
        config_lines=spec.config.splitlines() if spec.config else [],
    )
    write_atomically(out, page)


def _run_ids(tables: Iterable[AggregatedGrid | AggregatedMethods]) -> Iterator[str]:
    for table in tables:
        for row in table.rows:
            yield from (seed.run for seed in row.accuracy.seeds)


def _view(table: AggregatedGrid | AggregatedMethods, report_folder: Path) -> TableView:
    return grid_view(table, report_folder) if isinstance(table, AggregatedGrid) else methods_view(table, report_folder)


def _section(section: ReportSection, fragment: str | None, details: Mapping[str, RowDetails]) -> Section:
    """A section with its table, which is this fragment or else the one that the section names."""
    html = fragment or (table_in(read(section.table), section.table) if section.table else "")
    return Section(
        id=section.id,
        heading=section.heading,
        # A fragment comes from our own templates, which have escaped every value in it.
        table=Markup(html) if html else None,  # noqa: S704
        details=tuple(details.values()),
        downloads=tuple(map(download, section.downloads)),
        figures=tuple(map(image, section.figures)),
    )
