"""Steps of the workflow: from finished runs to tables, figures and the report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from east.cli.app import app
from east.cli.input import parsed


@app.command()
def aggregate(
    table: Annotated[str, typer.Option(help="The table's description, as JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    out: Annotated[Path, typer.Option(help="File for the result, JSON.")],
    partial: Annotated[bool, typer.Option(help="Accept that runs are missing, and show it.")] = False,
    seen: Annotated[
        list[str] | None, typer.Option(help="Times of the files there are; only the workflow looks.")
    ] = None,
) -> None:
    """Summarise the runs of a table: mean and spread over seeds, with the published numbers beside them."""
    from east.analysis.aggregate import aggregate as aggregate_runs
    from east.analysis.aggregate import write_json
    from east.config.tables import read_table
    from east.render.templating import REPORT_FOLDER

    published = REPORT_FOLDER / "published"
    write_json(
        aggregate_runs(parsed("--table", read_table, table), runs, published_dir=published, partial=partial), out
    )


@app.command()
def table(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
) -> None:
    """Print a summarised table as CSV, Markdown, LaTeX and HTML."""
    from east.analysis.aggregate import read_json
    from east.render.tables import render_table

    render_table(read_json(aggregated)).write(stem)


@app.command("table-b1")
def table_b1(
    rows: Annotated[str, typer.Option(help="The recipes in the columns of Table B.1, as JSON.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
) -> None:
    """Print Table B.1 from the recipes in force."""
    from east.render.hyperparameters import render_hyperparameters
    from east.render.templating import REPORT_FOLDER

    render_hyperparameters(parsed("--rows", json.loads, rows), REPORT_FOLDER / "published" / "tableB1.csv").write(stem)


@app.command("table-6")
def table_6(
    costs: Annotated[Path, typer.Argument(help="What `east cost` wrote.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
    plan: Annotated[str, typer.Option(help="What was measured, as JSON.")],
) -> None:
    """Print Table 6 as CSV, Markdown, LaTeX and HTML."""
    from east.config.cost import CostPlan
    from east.render.cost import render_cost
    from east.render.names import DATASETS, NETWORKS
    from east.render.templating import REPORT_FOLDER

    what = parsed("--plan", CostPlan.model_validate_json, plan)
    render_cost(
        json.loads(costs.read_text(encoding="utf-8")),
        REPORT_FOLDER / "published" / what.published if what.published else None,
        network=NETWORKS[what.model],
        dataset=DATASETS[what.dataset],
        comparable=what.comparable,
    ).write(stem)


@app.command()
def figures(
    aggregated: Annotated[Path, typer.Argument(help="A summarised table, JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    stem: Annotated[Path, typer.Option(help="Folder and beginning of the files' names.")],
) -> None:
    """Draw a table's learning curves and, for Tables 2-5, accuracy against the multiplier."""
    from east.analysis.aggregate import AggregatedGrid, read_json
    from east.render.figures import accuracy_by_multiplier, accuracy_curves

    summarised = read_json(aggregated)
    accuracy_curves(summarised, runs, stem.with_name(f"{stem.name}-curves"))
    if isinstance(summarised, AggregatedGrid):
        accuracy_by_multiplier(summarised, stem.with_name(f"{stem.name}-multiplier"))


@app.command("figure-density")
def figure_density(
    schedules: Annotated[str, typer.Option(help="Schedules with labels, as JSON.")],
    stem: Annotated[Path, typer.Option(help="Folder and name of the files, without an ending.")],
) -> None:
    """Draw the scheduled density of every schedule against the epoch."""
    from east.render.figures import Series, density_schedules
    from east.sparse.schedule import CyclicDensity

    points = 500
    series = []
    for entry in parsed("--schedules", json.loads, schedules):
        density = CyclicDensity(**entry["schedule"])
        epochs = [entry["epochs"] * i / points for i in range(points + 1)]
        series.append(Series(entry["label"], epochs, [density(epoch) for epoch in epochs]))
    density_schedules(series, stem)


@app.command()
def report(
    spec: Annotated[str, typer.Option(help="The report's contents, as JSON.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")],
    out: Annotated[Path, typer.Option(help="The page.")],
) -> None:
    """Write the report as one self-contained page."""
    from east.analysis.aggregate import read_json
    from east.analysis.provenance import collect_provenance
    from east.render.report import ReportSpec, write_report

    contents = parsed("--spec", ReportSpec.model_validate_json, spec)
    run_ids = [seed.run for path in contents.aggregated for row in read_json(path).rows for seed in row.accuracy.seeds]
    write_report(out, contents.model_copy(update={"provenance": collect_provenance(run_ids, runs)}))
