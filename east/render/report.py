"""The report: one self-contained HTML page with what was run, all tables and figures, and where they come from."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from pydantic import Field

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, read_json
from east.analysis.provenance import Coverage, Provenance, table_coverage
from east.config.run import Frozen
from east.errors import EastError
from east.files import write_atomically
from east.render.names import enumerate_in_words, table_label
from east.render.numbers import duration, fixed
from east.render.overview import overview_view
from east.render.palette import DARK
from east.render.templating import REPORT_FOLDER, html_environment, render

_MEDIA = {
    ".csv": "text/csv;charset=utf-8",
    ".md": "text/markdown;charset=utf-8",
    ".tex": "application/x-tex;charset=utf-8",
    ".json": "application/json",
}


class ReportFigure(Frozen):
    """A figure: its SVG file, what it shows, and how that is told to those who cannot see it."""

    svg: Path
    caption: str
    alt: str = ""


class ReportSection(Frozen):
    """A table with its figures, under a heading."""

    heading: str
    text: tuple[str, ...] = Field(default=(), description="paragraphs above the table")
    table: Path | None = Field(default=None, description="an HTML fragment that `render_table` and its kin wrote")
    downloads: tuple[Path, ...] = Field(default=(), description="the same in other formats, put into the page")
    figures: tuple[ReportFigure, ...] = ()


class Reading(Frozen):
    """A matter that the paper leaves open, and how this plan reads it."""

    matter: str
    value: str = Field(description="the reading in force")
    default: str = Field(description="the project's reading unless the config says otherwise")
    other: str = Field(default="", description="what else it can mean")
    key: str = Field(default="", description="the config key that sets it")
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the plan departs from the default."""
        return self.value != self.default


class ReportSpec(Frozen):
    """All that goes into a report; paths are read when it is written."""

    title: str
    name: str = Field(description="the plan's name, such as `demo`")
    introduction: tuple[str, ...] = Field(default=(), description="paragraphs under the title")
    aggregated: tuple[Path, ...] = Field(
        default=(), description="summarised tables (JSON), for coverage and the overview"
    )
    tables: tuple[ReportSection, ...] = ()
    figures: tuple[ReportFigure, ...] = Field(default=(), description="figures that belong to no single table")
    cost: ReportSection | None = None
    readings: tuple[Reading, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict, description="provenance in words: config files, command, ...")
    config: str | None = Field(default=None, description="the resolved config, shown as it is")
    provenance: Provenance = Provenance()


def write_report(out: Path, spec: ReportSpec, report_folder: Path = REPORT_FOLDER) -> None:
    """Write the report as one file, which loads nothing and runs no script.

    Args:
        out: The page, such as `results/demo/report/index.html`.
        spec: What goes into it.
        report_folder: The folder `report` with the templates and the style sheet.

    Raises:
        EastError: A file that the spec names cannot be read.
    """
    tables = [read_json(path) for path in spec.aggregated]
    coverage = table_coverage(tables)
    environment = html_environment(report_folder)
    overview = overview_view(tables, report_folder)
    page = render(
        environment,
        "report.html.j2",
        spec=spec,
        style=Markup(_read(report_folder / "style.css")),  # noqa: S704 - our own style sheet
        coverage=coverage if tables else None,
        shares=_shares(coverage),
        cautions=_cautions(tables, coverage, spec.provenance),
        overview=Markup(render(environment, "table.html.j2", views=[overview])) if overview else None,  # noqa: S704
        sections=[_section(section, number) for number, section in enumerate(spec.tables, start=1)],
        figures=[_figure(figure) for figure in spec.figures],
        cost=_section(spec.cost, len(spec.tables) + 1) if spec.cost else None,
        training_time=duration(spec.provenance.seconds),
        provenance=_provenance_rows(spec),
        config_lines=spec.config.splitlines() if spec.config else [],
    )
    write_atomically(out, page)


def _section(section: ReportSection, number: int) -> dict[str, object]:
    return {
        "heading": section.heading,
        "anchor": f"section-{number}",
        "text": section.text,
        # A fragment comes from our own templates, which have escaped every value in it.
        "table": Markup(_read(section.table)) if section.table else None,  # noqa: S704
        "downloads": [_download(path) for path in section.downloads],
        "figures": [_figure(figure) for figure in section.figures],
    }


def _download(path: Path) -> dict[str, str]:
    media = _MEDIA.get(path.suffix, "application/octet-stream")
    return {"name": path.name, "kind": path.suffix.lstrip("."), "uri": _data_uri(media, _read(path))}


def _figure(figure: ReportFigure) -> dict[str, str]:
    # As an image, an SVG file can neither run scripts nor load anything, and its ids cannot clash.
    svg = _with_dark_mode(_read(figure.svg))
    return {
        "uri": _data_uri("image/svg+xml", svg),
        "caption": figure.caption,
        "alt": figure.alt or figure.caption,
    }


def _with_dark_mode(svg: str) -> str:
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda match: match.group(1) + style, svg, count=1)


def _data_uri(media: str, text: str) -> str:
    return f"data:{media};base64,{base64.b64encode(text.encode()).decode()}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EastError(f"The report needs {path}, which cannot be read: {error}.") from error


def _shares(coverage: Coverage) -> list[tuple[str, int, str]]:
    counts = {"finished": coverage.finished, "diverged": coverage.diverged, "missing": coverage.missing}
    return [(kind, count, f"{100 * count / coverage.planned:.3f}") for kind, count in counts.items() if count]


def _cautions(
    tables: Sequence[AggregatedGrid | AggregatedMethods], coverage: Coverage, provenance: Provenance
) -> list[str]:
    cautions = []
    other = [table for table in tables if isinstance(table, AggregatedGrid) and not table.comparable]
    if other:
        names = enumerate_in_words([table_label(table.id) or table.id for table in other])
        cautions.append(
            f"{names} ran with another network, width, density or other images than the paper's: they show that the "
            "pipeline works, and test none of the paper's numbers."
        )
    if coverage.missing:
        cautions.append(
            f"{_runs(coverage.missing)} of the plan {_have(coverage.missing)} not finished yet; rows that lack seeds "
            "say so, and their means are over the seeds that are there."
        )
    if coverage.diverged:
        cautions.append(
            f"{_runs(coverage.diverged)} diverged; no mean includes them, and every row that lost a seed says so."
        )
    if len(provenance.code_digests) > 1:
        versions = enumerate_in_words(
            [f"{_runs(count)} by {digest}" for digest, count in provenance.code_digests.items()]
        )
        cautions.append(
            f"The runs were trained by {len(provenance.code_digests)} different versions of the code: {versions}. "
            "If a change between them can alter numbers, raise REVISION and train again."
        )
    return cautions


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _provenance_rows(spec: ReportSpec) -> list[tuple[str, list[str]]]:
    """Names and values in the order in which they are shown; a value that all runs share is not counted."""
    provenance = spec.provenance
    rows: list[tuple[str, list[str]]] = [(name, [value]) for name, value in spec.facts.items()]
    rows += [
        ("Seeds", [", ".join(str(seed) for seed in provenance.seeds)]) if provenance.seeds else ("Seeds", []),
        ("Commit", _counted(provenance.commits)),
        ("Code digest", _counted(provenance.code_digests)),
        ("Device", _counted(provenance.devices)),
        ("Engine", _counted(provenance.engines)),
    ]
    rows += [(program.capitalize(), _counted(versions)) for program, versions in provenance.versions.items()]
    if provenance.commits:
        resumed = f", {_runs(provenance.resumed)} in more than one attempt" if provenance.resumed else ""
        rows.append(("Training time", [f"{duration(provenance.seconds)} over all runs{resumed}"]))
    if provenance.peak_memory_mb is not None:
        rows.append(("Peak memory", [f"{fixed(provenance.peak_memory_mb, 0)} MB, the largest of any run"]))
    return [(name, values) for name, values in rows if values]


def _counted(counts: Mapping[str, int]) -> list[str]:
    if len(counts) == 1:
        return list(counts)
    return [f"{value} ({_runs(count)})" for value, count in counts.items()]
