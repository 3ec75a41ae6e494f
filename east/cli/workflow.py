"""The workflow's steps from finished runs to tables, figures and the report: `east make`, which only rules call."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.cli.common import parsed
from east.errors import EastError

if TYPE_CHECKING:
    from east.analysis.sources import Request, Sources


def make(
    results: Annotated[Path, typer.Option(envvar="EAST_RESULTS", help="Folder of the results.")],
    request: Annotated[str, typer.Option(help="What is made, as JSON; - reads standard input.")] = "-",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(envvar="EAST_PLUGINS", help="Where a plugin may be whose form a claim has."),
    ] = None,
) -> None:
    """Make derived files of the results from what they need, and record what they were made from."""
    from east.analysis.sources import Request, Sources
    from east.plugins import load_needed

    asked = parsed("--request", Request.model_validate_json, request)
    if asked.step not in STEPS:
        raise EastError(f"--request: there is no step '{asked.step}'; choose one of {', '.join(STEPS)}.")
    load_needed(_plugins_of(asked), plugin or ())
    STEPS[asked.step](Sources(results, asked.expected), asked)


def _plugins_of(request: "Request") -> dict[str, str]:
    """SHA-256 of each plugin that a step needs -> what of it: forms of claims, which are no part of any run."""
    written = [claim["form"] for claim in request.of["claims"]] if request.step == "analyse" else []
    forms = [form for form in written if isinstance(form, dict) and "plugin" in form]
    return {form["plugin"]: f"claim form '{form['name']}'" for form in forms}


def _aggregate(sources: "Sources", request: "Request") -> None:
    """Summarise the runs of a table: mean and spread over seeds, with the published numbers beside them."""
    from east.analysis.aggregate import aggregate, table_json
    from east.config.tables import table_of
    from east.render.templating import PUBLISHED

    table = table_of(request.of["table"])
    found = aggregate(table, sources, published_dir=PUBLISHED, partial=request.of["partial"])
    sources.write(request, {sources.results / "aggregate" / f"{table.id}.json": table_json(found)})


def _analyse(sources: "Sources", request: "Request") -> None:
    """Compare tables with published ones, test claims on both, and audit what the paper prints."""
    from east.analysis.aggregate import AggregatedGrid, read_table
    from east.analysis.evidence import evidence_json, gather_evidence
    from east.config.tables import ClaimSpec, Comparing
    from east.render.templating import PUBLISHED

    read = (read_table(sources.results / "aggregate" / f"{table}.json", sources) for table in request.of["tables"])
    tables = [table for table in read if isinstance(table, AggregatedGrid)]
    claims = [ClaimSpec.model_validate(claim) for claim in request.of["claims"]]
    comparing = Comparing.model_validate(request.of["comparing"])
    evidence = gather_evidence(tables, claims, comparing, PUBLISHED, sources.published)
    sources.write(request, {sources.results / "analysis" / "evidence.json": evidence_json(evidence)})


def _frames(sources: "Sources", request: "Request") -> None:
    """Write every run, and every epoch of every run, as one CSV file each."""
    from east.analysis.results import write_frames

    write_frames(sources, request)


def _table(sources: "Sources", request: "Request") -> None:
    """Print a summarised table as CSV, Markdown, LaTeX and HTML."""
    from east.analysis.aggregate import read_table
    from east.render.tables import render_table

    table = request.of["table"]
    rendered = render_table(read_table(sources.results / "aggregate" / f"{table}.json", sources))
    sources.write(request, rendered.contents(sources.results / "tables" / table))


def _table_b1(sources: "Sources", request: "Request") -> None:
    """Print Table B.1 from the recipes in force."""
    from east.render.hyperparameters import render_hyperparameters
    from east.render.templating import PUBLISHED

    rendered = render_hyperparameters(request.of["rows"], PUBLISHED / "tableB1.csv", sources.published)
    sources.write(request, rendered.contents(sources.results / "tables" / "tableB1"))


def _table_6(sources: "Sources", request: "Request") -> None:
    """Print Table 6."""
    from east.config.tables import CostPlan
    from east.render.cost import read_costs, render_cost
    from east.render.names import DATASETS, network_label
    from east.render.templating import PUBLISHED

    what = CostPlan.model_validate(request.of["cost_plan"])
    rendered = render_cost(
        read_costs(sources.results / "cost" / "cost.json", sources),
        PUBLISHED / what.published if what.published else None,
        network=network_label(what.model),
        dataset=DATASETS[what.dataset],
        comparable=what.comparable,
        read=sources.published,
    )
    sources.write(request, rendered.contents(sources.results / "tables" / "table6"))


def _evidence_tables(sources: "Sources", request: "Request") -> None:
    """Print the comparison with the paper, its claims and the audit as CSV, Markdown, LaTeX and HTML."""
    from east.analysis.evidence import read_evidence
    from east.render.evidence import evidence_tables

    for printed in evidence_tables(read_evidence(sources.results / "analysis" / "evidence.json", sources)):
        sources.write(request, printed.render().contents(sources.results / "tables" / printed.name))


def _figures(sources: "Sources", request: "Request") -> None:
    """Draw a table: learning curves and mask churn; for Tables 2-5 accuracy by multiplier and layers as well."""
    from east.analysis.aggregate import read_table
    from east.render.figures import TableData, draw_table

    table = request.of["table"]
    data = TableData(read_table(sources.results / "aggregate" / f"{table}.json", sources), sources)
    for name, drawing in draw_table(data).items():
        stem = sources.results / "figures" / f"{table}-{name}"
        sources.write(request, {stem.with_suffix(".png"): drawing.png, stem.with_suffix(".svg"): drawing.svg})


def _plan_figures(sources: "Sources", request: "Request") -> None:
    """Draw what belongs to no single table: schedules, cost and the differences from the paper."""
    from east.analysis.evidence import read_evidence
    from east.config.tables import CostPlan
    from east.render.cost import read_costs
    from east.render.figures import PlanData, draw_plan
    from east.render.schedules import SCHEDULES

    evidence = sources.results / "analysis" / "evidence.json"
    data = PlanData(
        schedules=SCHEDULES.validate_python(request.of["schedules"]),
        costs=read_costs(sources.results / "cost" / "cost.json", sources),
        cost_plan=CostPlan.model_validate(request.of["cost_plan"]),
        comparisons=read_evidence(evidence, sources).comparisons if request.of["differences"] else None,
        read=sources.published,
    )
    for name, drawing in draw_plan(data).items():
        stem = sources.results / "figures" / name
        sources.write(request, {stem.with_suffix(".png"): drawing.png, stem.with_suffix(".svg"): drawing.svg})


def _report(sources: "Sources", request: "Request") -> None:
    """Write the report as one self-contained page."""
    from east.render.contents import ReportSpec
    from east.render.page import report_page

    page = report_page(ReportSpec.model_validate(request.of["spec"]), sources)
    sources.write(request, {sources.results / "report" / "index.html": page})


def _appendix(sources: "Sources", request: "Request") -> None:
    """Write every table and figure as one LaTeX document."""
    from east.render.appendix import appendix_document
    from east.render.contents import ReportSpec

    out = sources.results / "tables" / "appendix.tex"
    document = appendix_document(ReportSpec.model_validate(request.of["spec"]), sources, out.parent)
    sources.write(request, {out: document})


STEPS: "dict[str, Callable[[Sources, Request], None]]" = {
    "aggregate": _aggregate,
    "analyse": _analyse,
    "frames": _frames,
    "table": _table,
    "table-b1": _table_b1,
    "table-6": _table_6,
    "evidence-tables": _evidence_tables,
    "figures": _figures,
    "plan-figures": _plan_figures,
    "report": _report,
    "appendix": _appendix,
}
"""Name of a step -> what makes its files. `east.operations.steps` says what each is asked for in a plan."""
