"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from east.launch.cores import check_threads

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
Results = Annotated[
    Path | None, typer.Option("--results", help="Folder of the results; results/<name> of the configuration if absent.")
]
Device = Annotated[str, typer.Option(envvar="EAST_DEVICE", help="auto, cpu or cuda.")]
EngineName = Annotated[str, typer.Option(envvar="EAST_ENGINE", help="auto, dense or sparse.")]
StepName = Annotated[str, typer.Option("--step", envvar="EAST_STEP", help="auto, eager, captured or compiled.")]
CORES = os.cpu_count() or 1
Threads = Annotated[
    int, typer.Option(min=1, callback=lambda threads: check_threads(threads, CORES), help="CPU threads.")
]
RunsPerGpu = Annotated[
    int, typer.Option(envvar="EAST_RUNS_PER_GPU", min=1, help="Trainings that may share a GPU at the same time.")
]
