"""The `east` command: a thin layer over the package."""

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from east.config import Plan, Run, RunSpec, make_plan, read_config
from east.errors import EastError
from east.files import write_atomically

T = TypeVar("T")

app = typer.Typer(
    help="EAST at extreme sparsity: plan, train, measure and render the paper's appendix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Overlay merged over config.yaml; may be given several times."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunId = Annotated[str, typer.Argument(help="A run of the plan, for example table2/static/seed17.")]
DataDir = Annotated[Path, typer.Option(envvar="EAST_DATA_DIR", help="Where prepared data sets are.")]
ImageFolder = Annotated[
    Path | None, typer.Option(envvar="EAST_IMAGE_FOLDER", help="ImageNet's folder with train/ and val/.")
]
Device = Annotated[str, typer.Option(envvar="EAST_DEVICE", help="auto, cpu or cuda.")]
EngineName = Annotated[str, typer.Option(envvar="EAST_ENGINE", help="auto, dense or sparse.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
CORES = os.cpu_count() or 1


def main() -> None:
    """Run the command; a mistake of the user's ends in a plain sentence and status 1."""
    try:
        app()
    except EastError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of our output (`head`) has had enough; that is no error, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def plan(configfile: ConfigFiles = None, as_json: AsJson = False) -> None:
    """List every run of the configuration."""
    rows = [_plan_row(run) for run in _plan(configfile).runs]
    if as_json:
        _print_json(rows)
        return
    _print_table(["id", "method", "model", "dataset", "seed", "recipe"], rows)
    print(f"{len(rows)} runs")


@app.command()
def inspect(run_id: RunId, configfile: ConfigFiles = None, as_json: AsJson = False) -> None:
    """Show every masked tensor of a run at its target density, and what the network stores."""
    from east.training.describe import describe_network

    description = describe_network(_plan(configfile).run(run_id).spec)
    if as_json:
        _print_json(description)
        return
    rows = [
        {**tensor, "shape": "x".join(map(str, tensor["shape"])), "density": f"{tensor['density']:.3g}"}
        for tensor in description["tensors"]
    ]
    _print_table(["name", "shape", "density", "nonzeros"], rows)
    for key, value in description["totals"].items():
        print(f"{key.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{key}: {value:g}")


@app.command()
def schedule(run_id: RunId, configfile: ConfigFiles = None) -> None:
    """Print step, epoch, density, drop fraction, learning rate and beta at each mask update, as CSV."""
    from east.training.describe import mask_updates

    rows = mask_updates(_plan(configfile).run(run_id).spec)
    writer = csv.DictWriter(
        sys.stdout, ["step", "epoch", "density", "drop_fraction", "lr", "beta"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="cifar10, cifar100, imagenet, digits or digit_pairs.")],
    data_dir: DataDir = Path("data"),
    image_folder: ImageFolder = None,
) -> None:
    """Download (where needed), verify and store a data set for training."""
    from east.data.prepare import prepare as prepare_dataset

    print(prepare_dataset(dataset, data_dir, folder=image_folder))


@app.command()
def train(
    run: Annotated[str, typer.Option(help="The resolved run: JSON, or a file that holds it.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; a checkpoint of the same run in it is resumed.")],
    data_dir: DataDir = Path("data"),
    image_folder: ImageFolder = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    threads: Threads = CORES,
    total: Annotated[
        int | None, typer.Option(envvar="EAST_PLANNED_RUNS", help="Runs of the whole plan, to show the share done.")
    ] = None,
) -> None:
    """Train one run from its description alone and print one line about the result."""
    spec = _read_spec(run)
    from east.data.manifest import MANIFEST_FILE
    from east.data.prepare import prepare as prepare_dataset
    from east.training.loop import Resources
    from east.training.loop import train as train_run
    from east.training.progress import epoch_reporter, finished_line

    if not (data_dir / spec.dataset.name / MANIFEST_FILE).is_file():
        prepare_dataset(spec.dataset.name, data_dir, folder=image_folder)
    resources = Resources(device, engine, threads, data_dir, image_folder)
    with epoch_reporter("/".join(out.absolute().parts[-3:]), spec.training.epochs) as report:
        summary = train_run(spec, out, resources, report)
    print(finished_line(summary, out, total), flush=True)


@app.command()
def cost(
    model: Annotated[str | None, typer.Option(help="Network; that of `cost` in the configuration if absent.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set, likewise.")] = None,
    configfile: ConfigFiles = None,
    as_json: AsJson = False,
    plan: Annotated[str | None, typer.Option(help="What to measure, as JSON; the workflow gives it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    threads: Threads = CORES,
    measure: Annotated[bool, typer.Option(help="Time training steps on this machine as well.")] = True,
) -> None:
    """Table 6: what each method costs, by the paper's accounting and in truth."""
    from east.config.cost import CostPlan, cost_plan
    from east.cost.report import measured_cost

    what = (
        _parsed("--plan", CostPlan.model_validate_json, plan)
        if plan is not None
        else cost_plan(read_config(*(configfile or [])), model, dataset)
    )
    rows = measured_cost(what, device=device, engine=engine, threads=threads, measure=measure)
    if out is not None:
        write_atomically(out, json.dumps(rows, indent=2) + "\n")
    elif as_json:
        _print_json(rows)
    else:
        columns = ["method", "param_size_mb", "est_total_mb", "trainable_parameters", "nonzeros", "seconds_per_step"]
        _print_table(columns, [{**row, **_rounded(row, ("param_size_mb", "est_total_mb"))} for row in rows])


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
        aggregate_runs(_parsed("--table", read_table, table), runs, published_dir=published, partial=partial), out
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

    render_hyperparameters(_parsed("--rows", json.loads, rows), REPORT_FOLDER / "published" / "tableB1.csv").write(stem)


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

    what = _parsed("--plan", CostPlan.model_validate_json, plan)
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
    for entry in _parsed("--schedules", json.loads, schedules):
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

    contents = _parsed("--spec", ReportSpec.model_validate_json, spec)
    run_ids = [seed.run for path in contents.aggregated for row in read_json(path).rows for seed in row.accuracy.seeds]
    write_report(out, contents.model_copy(update={"provenance": collect_provenance(run_ids, runs)}))


def _plan(configfiles: list[Path] | None) -> Plan:
    return make_plan(read_config(*(configfiles or [])))


def _plan_row(run: Run) -> dict[str, object]:
    return {
        "id": run.id,
        "table": run.table,
        "row": run.row,
        "method": run.label,
        "model": run.spec.model.name,
        "dataset": run.spec.dataset.name,
        "seed": run.spec.seed,
        "recipe": run.recipe,
        "fingerprint": run.fingerprint,
        "run": run.spec.model_dump(mode="json"),
    }


def _read_spec(text: str) -> RunSpec:
    """A run from JSON or from a file of JSON."""
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
    except OSError as error:
        raise EastError(f"--run: {text} cannot be read ({error.strerror}).") from None
    return _parsed("--run", RunSpec.model_validate_json, content)


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option's JSON describes.

    Raises:
        EastError: it is no JSON, or describes something else.
    """
    try:
        return parse(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        raise EastError(f"{option}: {key}: {first['msg']}.") from None
    except json.JSONDecodeError as error:
        raise EastError(f"{option} is no JSON: {error}.") from None


def _rounded(row: dict[str, object], keys: tuple[str, ...]) -> dict[str, str]:
    return {key: f"{row[key]:.2f}" for key in keys}


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_table(columns: list[str], rows: list[dict[str, object]]) -> None:
    cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
