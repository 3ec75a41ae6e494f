"""Commands for trained networks: write one for other programs, or show it images."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from east.cli.common import (
    CORES,
    ConfigFiles,
    DataDir,
    Engine,
    Results,
    Threads,
    complete_run,
    counted,
    print_table,
)
from east.files import write_atomically
from east.shown import say, tell

FormName = Literal["dense", "masked", "nonzeros", "onnx"]
"""As `east.trained.export` has it, which needs PyTorch."""

AnyRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A finished run: its folder, or its id, for example table2/static/seed17.",
        autocompletion=complete_run,
    ),
]


def export(
    run: AnyRun,
    configfile: ConfigFiles = None,
    results: Results = None,
    form: Annotated[
        FormName,
        typer.Option(
            "--as",
            help="A state dict with zeros for weights that are off (dense), with the masks as well (masked), or with "
            "the non-zeros alone; or an ONNX graph.",
        ),
    ] = "dense",
    out: Annotated[
        Path | None, typer.Option(help="The file; named after the run, in the working directory, if absent.")
    ] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """Write the trained network of a run for other programs: a state dict in safetensors, or ONNX."""
    from rich.filesize import decimal

    from east.trained.export import exported, suffix
    from east.trained.load import load_network

    network = load_network(run, *(configfile or []), results=results, data_dir=data_dir)
    target = out or Path("-".join(network.summary.id.split("/")) + suffix(form))
    content = exported(network, form)
    write_atomically(target, content)
    nonzeros = "" if network.summary.nonzeros is None else f", {network.summary.nonzeros:,} non-zeros"
    say(f"{target}: {form}{nonzeros}, {decimal(len(content))}")


def predict(
    run: AnyRun,
    folder: Annotated[Path, typer.Argument(help="A folder of images; those in folders in it count as well.")],
    configfile: ConfigFiles = None,
    results: Results = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file as well.")] = None,
    data_dir: DataDir = Path("data"),
    engine: Engine = "auto",
    threads: Threads = CORES,
) -> None:
    """Classify the images of a folder by the trained network of a run, which computes with its non-zeros alone.

    Each image is scaled to the size of those that the network was trained on. Networks with DCT layers, and all
    networks where there is no compiler, are executed densely.
    """
    import torch

    from east.trained.images import image_files
    from east.trained.load import load_network
    from east.trained.predict import engine_for, predictions_csv
    from east.trained.predict import predict as classify

    files = image_files(folder)
    torch.set_num_threads(threads)
    network = load_network(run, *(configfile or []), results=results, data_dir=data_dir)
    executing = engine_for(network, engine)
    found = list(classify(network, files, executing))
    if csv is not None:
        write_atomically(csv, predictions_csv(found, folder))
    rows: list[dict[str, object]] = [
        {
            "file": one.file.relative_to(folder).as_posix(),
            "class": one.label,
            "probability": f"{one.probability:.4f}",
        }
        for one in found
    ]
    print_table(["file", "class", "probability"], rows, left=2)
    tell(f"{counted(len(found), 'image')}, executed by the {executing.executed().engine} engine.")
