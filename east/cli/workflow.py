"""Steps of the workflow: from finished runs to tables, figures and the report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from east.cli.common import parsed


def aggregate(
    table: Annotated[str, typer.Option(help="The table's description, as JSON; - reads standard input.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    out: Annotated[Path, typer.Option(help="File for the result, JSON.")],
    partial: Annotated[bool, typer.Option(help="Accept that runs are missing, and show it.")] = False,
) -> None:
    """Summarise the runs of a table: mean and spread over seeds, with the published numbers beside them."""
    from east.analysis.aggregate import aggregate as aggregate_runs
    from east.analysis.aggregate import write_json
    from east.config.tables import read_table
    from east.render.templating import REPORT_FOLDER

    described, published = parsed("--table", read_table, table), REPORT_FOLDER / "published"
    write_json(aggregate_runs(described, runs, published_dir=published, partial=partial), out)


def analyse(
    out: Annotated[Path, typer.Option(help="File for the result, JSON.")],
    aggregated: Annotated[list[Path] | None, typer.Argument(help="Summarised tables, JSON.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="Folder of the paper's numbers; report/published if absent.")
    ] = None,
) -> None:
    """Compare Tables 2-5 with the paper's, test its claims on both, and audit what it prints.

    Summarised tables of another kind are left out: the paper prints no accuracies beside the methods.
    """
    from east.analysis.aggregate import AggregatedGrid, read_json
    from east.analysis.evidence import gather_evidence, write_evidence
    from east.render.templating import REPORT_FOLDER

    tables = [table for path in aggregated or [] if isinstance(table := read_json(path), AggregatedGrid)]
    write_evidence(gather_evidence(tables, published or REPORT_FOLDER / "published"), out)


def frames(
    planned: Annotated[str, typer.Option(help="Id, fingerprint and method of every run, as JSON; - reads stdin.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    folder: Annotated[Path, typer.Option(help="Where runs.csv and epochs.csv go.")],
) -> None:
    """Write every run, and every epoch of every run, as one CSV file each."""
    from east.analysis.results import PLANNED_RUNS, write_frames

    write_frames(runs, parsed("--planned", PLANNED_RUNS.validate_json, planned), folder)


def table(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
) -> None:
    """Print a summarised table as CSV, Markdown, LaTeX and HTML."""
    from east.analysis.aggregate import read_json
    from east.render.tables import render_table

    render_table(read_json(aggregated)).write(stem)


def table_b1(
    rows: Annotated[str, typer.Option(help="The recipes in the columns of Table B.1, as JSON.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
) -> None:
    """Print Table B.1 from the recipes in force."""
    from east.render.hyperparameters import render_hyperparameters
    from east.render.templating import REPORT_FOLDER

    render_hyperparameters(parsed("--rows", json.loads, rows), REPORT_FOLDER / "published" / "tableB1.csv").write(stem)


def table_6(
    costs: Annotated[Path, typer.Argument(help="What `east cost` wrote.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
    plan: Annotated[str, typer.Option(help="What was measured, as JSON.")],
) -> None:
    """Print Table 6 as CSV, Markdown, LaTeX and HTML."""
    from east.config.tables import CostPlan
    from east.render.cost import read_costs, render_cost
    from east.render.names import DATASETS, NETWORKS
    from east.render.templating import REPORT_FOLDER

    what = parsed("--plan", CostPlan.model_validate_json, plan)
    render_cost(
        read_costs(costs),
        REPORT_FOLDER / "published" / what.published if what.published else None,
        network=NETWORKS[what.model],
        dataset=DATASETS[what.dataset],
        comparable=what.comparable,
    ).write(stem)


def evidence_tables(
    evidence: Annotated[Path, typer.Argument(help="What `east analyse` wrote.")],
    folder: Annotated[Path, typer.Option(help="Where the tables go.")],
) -> None:
    """Print the comparison with the paper, its claims and the audit as CSV, Markdown, LaTeX and HTML."""
    from east.analysis.evidence import read_evidence
    from east.render.evidence import evidence_tables

    for printed in evidence_tables(read_evidence(evidence)):
        printed.render().write(folder / printed.name)


def report(
    spec: Annotated[str, typer.Option(help="The report's contents, as JSON; - reads standard input.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    out: Annotated[Path, typer.Option(help="The page.")],
) -> None:
    """Write the report as one self-contained page."""
    from east.render.contents import ReportSpec
    from east.render.page import write_report

    write_report(out, parsed("--spec", ReportSpec.model_validate_json, spec), runs)


def appendix(
    spec: Annotated[str, typer.Option(help="The report's contents, as JSON; - reads standard input.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    out: Annotated[Path, typer.Option(help="The document.")],
) -> None:
    """Write every table and figure as one LaTeX document."""
    from east.render.appendix import write_appendix
    from east.render.contents import ReportSpec

    write_appendix(out, parsed("--spec", ReportSpec.model_validate_json, spec), runs)


def figures(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    stem: Annotated[Path, typer.Option(help="Folder and beginning of the files' names.")],
) -> None:
    """Draw a table: learning curves and mask churn; for Tables 2-5 accuracy by multiplier and layers as well."""
    from east.analysis.aggregate import read_json
    from east.render.figures import TableData, draw_table

    draw_table(TableData(read_json(aggregated), runs), stem)


def plan_figures(
    folder: Annotated[Path, typer.Option(help="Where the figures go.")],
    schedules: Annotated[str, typer.Option(help="Every schedule, as JSON; - reads standard input.")],
    costs: Annotated[Path, typer.Option(help="What `east cost` wrote.")],
    cost_plan: Annotated[str, typer.Option(help="What was measured, as JSON.")],
    evidence: Annotated[
        Path | None, typer.Option(help="What `east analyse` wrote; without it the differences are not drawn.")
    ] = None,
) -> None:
    """Draw what belongs to no single table: schedules, cost and the differences from the paper."""
    from east.analysis.evidence import read_evidence
    from east.config.tables import CostPlan
    from east.render.cost import read_costs
    from east.render.figures import PlanData, draw_plan
    from east.render.schedules import SCHEDULES

    data = PlanData(
        schedules=parsed("--schedules", SCHEDULES.validate_json, schedules),
        costs=read_costs(costs),
        cost_plan=parsed("--cost-plan", CostPlan.model_validate_json, cost_plan),
        comparisons=read_evidence(evidence).comparisons if evidence else None,
    )
    draw_plan(data, folder)
