"""The report: one self-contained HTML page with what was run, how it stands to the paper, and where it comes from."""

import base64
import re
from html import unescape
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from east.analysis.aggregate import AggregatedGrid, read_table
from east.analysis.evidence import read_evidence
from east.analysis.provenance import provenance_of
from east.analysis.sources import Sources
from east.render.contents import ReportFigure, ReportSection, ReportSpec
from east.render.evidence import evidence_tables
from east.render.overview import overview, provenance_rows
from east.render.palette import DARK
from east.render.runs import read_outcomes, row_details, run_ids
from east.render.tables import grid_view, methods_view
from east.render.templating import (
    content_security_policy,
    html_environment,
    project_text,
    render,
    table_in,
)
from east.render.view import TableView

_MEDIA = {
    ".csv": "text/csv;charset=utf-8",
    ".md": "text/markdown;charset=utf-8",
    ".tex": "application/x-tex;charset=utf-8",
}


def report_page(spec: ReportSpec, sources: Sources) -> str:
    """The report as one page, which loads nothing and runs no script but its own.

    Raises:
        EastError: A file that the spec names, or one of a run, cannot be read.
    """
    tables = {part.id: read_table(part.aggregated, sources) for part in spec.tables if part.aggregated}
    evidence = read_evidence(spec.evidence, sources) if spec.evidence else None
    comparisons = evidence.comparisons if evidence else ()
    compared = {comparison.table: {row.row: row for row in comparison.rows} for comparison in comparisons}
    outcomes = read_outcomes(run_ids(tables.values()), sources)
    trained = provenance_of([outcome.summary for outcome in outcomes.values() if outcome.summary])
    details = {
        place: row_details(table, outcomes, compared.get(place, {}), runs_dir=sources.runs, logs_dir=spec.logs)
        for place, table in tables.items()
    }
    environment = html_environment()

    def table_html(view: TableView) -> Markup:
        opened = details.get(view.id.removeprefix("comparison-"), {})
        # The template has escaped every value.
        return Markup(render(environment, "table.html.j2", views=[view], details=opened))  # noqa: S704

    def section_html(section: ReportSection) -> Markup:
        if section.id in tables:
            table = tables[section.id]
            return table_html(grid_view(table) if isinstance(table, AggregatedGrid) else methods_view(table))
        # Written by the same template.
        path = section.table
        return Markup(table_in(sources.derived(path).decode(), path) if path else "")  # noqa: S704

    style, script = project_text("style.css"), project_text("script.js")
    return render(
        environment,
        "report.html.j2",
        spec=spec,
        policy=content_security_policy(style, script),
        # Our own files, whose text the policy names.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        overview=overview(list(tables.values()), comparisons, trained),
        all_of_paper=all(
            table.published_table is not None for table in tables.values() if isinstance(table, AggregatedGrid)
        ),
        details=details,
        evidence=evidence_tables(evidence) if evidence else (),
        provenance=provenance_rows(spec.facts, trained),
        table_html=table_html,
        section_html=section_html,
        download=lambda path: download(path, sources.derived(path)),
        image=lambda figure: image(figure, sources.derived(figure.svg).decode()),
    )


def image(figure: ReportFigure, svg: str) -> dict[str, str]:
    """A figure as an image: so its file can neither run scripts nor load anything, and its ids cannot clash.

    Its width and height, in any unit, keep its place while it is decoded.
    """
    size = re.search(r'\bviewBox="\s*[-\d.]+[\s,]+[-\d.]+[\s,]+([\d.]+)[\s,]+([\d.]+)\s*"', svg)
    described = re.search(r"<dc:description>(.*?)</dc:description>", svg, flags=re.DOTALL)
    width, height = size.groups() if size else ("", "")
    return {
        "uri": _svg_uri(_short(svg)),
        "caption": figure.caption,
        "alt": unescape(described.group(1)) if described else figure.caption,
        "width": width.partition(".")[0],
        "height": height.partition(".")[0],
    }


def download(path: Path, content: bytes) -> dict[str, str]:
    """A file inside the page, to be saved under its name."""
    data = base64.b64encode(content).decode()
    media = _MEDIA.get(path.suffix, "application/octet-stream")
    # Neither part has a character that HTML would read as anything else.
    uri = Markup(f"data:{media};base64,{data}")  # noqa: S704
    return {"uri": uri, "name": path.name, "kind": path.suffix.lstrip(".")}


def _svg_uri(svg: str) -> Markup:
    """A drawing as an address, with the colours of a dark page beside its own."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>"
    styled = re.sub(r"(<svg\b[^>]*>)", lambda match: match.group(1) + style, svg, count=1)
    # Most of a drawing is digits, which percent-encoding leaves alone; Base64 would add a third.
    text = quote(" ".join(styled.split()), safe=" !$()*+,-./:;=?@")
    return Markup(f"data:image/svg+xml;charset=utf-8,{text}")  # noqa: S704 - nothing is left to escape


def _short(svg: str) -> str:
    """A drawing with coordinates to a hundredth of a point; more cannot be seen, and is half of a curve's size."""
    return re.sub(r'(?<= d=")[^"]+', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), svg)
