"""A report of a few made-up runs, for the tests of the page and of the appendix."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from east.analysis.aggregate import AggregatedGrid, AggregatedMethods, aggregate, table_json
from east.analysis.evidence import evidence_json
from east.analysis.sources import Request, Sources
from east.config.tables import Table
from east.cost.record import CostRecord
from east.render.contents import FigureGroup, Reading, ReportFigure, ReportSection, ReportSpec
from east.render.cost import render_cost
from east.render.rendered import Rendered
from east.render.tables import render_table
from tests.unit.fake_runs import DIVERGED, PUBLISHED, grid, methods, write_curve, write_run
from tests.unit.fake_tables import gather

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 486.5 120.25"><metadata><dc:description>Two &amp; two'
    '</dc:description></metadata><path style="fill: #1f2933" d="M 1.23456 2 L 3 4"/></svg>'
)


ANY = Request(step="any")


def write_derived(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files as a step of the workflow does, by their places in the results."""
    for place, content in contents.items():
        Sources(folder).write(ANY, {folder / place: content})


def write_rendered(folder: Path, name: str, rendered: Rendered) -> None:
    """Write a table in every format."""
    Sources(folder).write(ANY, rendered.contents(folder / "tables" / name))


def summarise(table: Table, folder: Path) -> AggregatedGrid | AggregatedMethods:
    """Summarise a table whose runs are in `folder/runs`, and write it as the workflow does."""
    summarised: Any = aggregate(table, Sources(folder), published_dir=PUBLISHED, partial=True)
    write_derived(folder, {f"aggregate/{table.id}.json": table_json(summarised)})
    write_rendered(folder, table.id, render_table(summarised))
    return summarised


def section(name: str, folder: Path, text: str, **keys: Any) -> ReportSection:
    """A table that `summarise` has written."""
    downloads = tuple(folder / "tables" / f"{name}.{ending}" for ending in ("csv", "tex"))
    return ReportSection(id=name, heading=text, downloads=downloads, **keys)


def make_report(folder: Path, text: str = "") -> ReportSpec:
    """What goes into a report with finished, diverged and missing runs, everything of which lies in `folder`.

    Args:
        folder: An empty folder.
        text: What stands wherever a configuration or a run can put text; harmless words if empty.
    """
    runs, any_text = folder / "runs", text or "A text"
    keys = {"method": text, "footnote": text} if text else {}
    planned = (
        grid(
            runs,
            [80.0, 81.0],
            [85.0, DIVERGED, None],
            title=any_text,
            static_keys=keys,
            cyclic_keys=keys,
        ),
        methods(runs, [70.0], method=any_text, recipe=any_text, note=any_text),
    )
    said = dict.fromkeys(("commit", "code_digest", "device", "engine"), text) if text else {}
    write_run(runs, "table2/static/seed17", 80.0, **({"versions": {text: text}} | said if text else {}))
    write_curve(runs / "table2/cosine-m10-n2-g2/seed17", [10.0, 60.0, 85.0])
    tables = [summarise(table, folder) for table in planned]
    write_derived(folder, {"analysis/evidence.json": evidence_json(gather([tables[0]], PUBLISHED))})
    costs = [CostRecord(method=any_text, param_size_mb=1, est_total_mb=2, measured_on=any_text)]
    write_rendered(folder, "table6", render_cost(costs, None, network=any_text, dataset=any_text))
    figure = folder / "figures" / "table2-multiplier.svg"
    write_derived(folder, {"figures/table2-multiplier.svg": SVG})
    return ReportSpec(
        title=any_text,
        name=any_text,
        introduction=any_text,
        tables=tuple(
            section(each.id, folder, any_text, aggregated=folder / "aggregate" / f"{each.id}.json") for each in tables
        ),
        evidence=folder / "analysis" / "evidence.json",
        evidence_files={"comparison": (folder / "tables" / "table2.md",)},
        figures=(FigureGroup(heading=any_text, figures=(ReportFigure(svg=figure, caption=any_text),)),),
        cost=section("table6", folder, any_text, table=folder / "tables" / "table6.html"),
        readings=(
            Reading(matter=any_text, value=any_text, default=any_text, other=any_text, key=any_text, reason=any_text),
            Reading(matter="Changed", value="z", default="w"),
        ),
        facts={any_text: any_text},
        logs=folder / (text or "logs"),
        config=f"seeds:\n  - 17\n{text}",
    )
