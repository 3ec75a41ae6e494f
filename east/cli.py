"""The `east` command: a thin layer over the package."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from east.config import Plan, Run, RunSpec, make_plan, read_config
from east.errors import EastError

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
DataDir = Annotated[Path, typer.Option(help="Where prepared data sets are.")]
ImageFolder = Annotated[Path | None, typer.Option(help="ImageNet's folder with train/ and val/.")]


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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto or dense.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
    total: Annotated[int | None, typer.Option(help="Runs of the whole plan, to show the share done.")] = None,
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
        return RunSpec.model_validate_json(content)
    except OSError as error:
        raise EastError(f"--run: {text} cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        raise EastError(f"--run: {key}: {first['msg']}. `east plan --json` prints whole runs under 'run'.") from None


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_table(columns: list[str], rows: list[dict[str, object]]) -> None:
    cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
