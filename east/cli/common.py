"""What commands share: options and their completion, the plan, options that are JSON, printed JSON and tables."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from east.errors import EastError
from east.launch.cores import check_threads
from east.shown import say, visible

if TYPE_CHECKING:
    from east.config import Plan
    from east.config.run import ImagesSpec

T = TypeVar("T")

CORES = os.cpu_count() or 1

DeviceName = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "dense", "sparse"]
StepName = Literal["auto", "eager", "captured", "compiled"]
TrackingName = Literal["none", "tensorboard"]
ChangedPluginName = Literal["refuse", "go_on", "begin_again"]
"""As `execution` in the configuration has them; repeated here because commands start without pydantic."""


def read_plan(configfiles: list[Path] | None) -> "Plan":
    """The plan of config.yaml with these overlays."""
    from east.config import make_plan, read_config

    return make_plan(read_config(*(configfiles or [])))


def read_plan_and_results(configfiles: list[Path] | None, results: Path | None) -> "tuple[Plan, Path]":
    """The plan, and the folder of its results: `results`, or `results/<name>` in the working directory."""
    plan = read_plan(configfiles)
    return plan, results or Path("results") / plan.config.name


def _completer(names: Callable[[list[Path] | None], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Completes what begins so of the names that a plan, or a part of the package, has."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(EastError):  # a mistake in the configuration is reported when the command runs
            return [name for name in names(ctx.params.get("configfile")) if name.startswith(incomplete)]
        return []

    return complete


complete_run = _completer(lambda files: [run.id for run in read_plan(files).runs])
complete_table = _completer(lambda files: [table.id for table in read_plan(files).tables])
complete_dataset = _completer(lambda files: import_module("east.data.catalog").DATASETS)
complete_method = _completer(lambda files: import_module("east.operations.trial").methods())
complete_own_kind = _completer(lambda files: [kind.word for kind in import_module("east.plugins").kinds().values()])
complete_kind = _completer(lambda files: import_module("east.operations.parts").WORDS.values())
complete_network = _completer(lambda files: [one.name for one in import_module("east.sparse.kinds").network])

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Overlay merged over config.yaml; may be given several times."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunId = Annotated[
    str, typer.Argument(help="A run of the plan, for example table2/static/seed17.", autocompletion=complete_run)
]
DataDir = Annotated[Path, typer.Option(envvar="EAST_DATA_DIR", help="Where prepared data sets are.")]
ImageFolder = Annotated[
    Path | None, typer.Option(envvar="EAST_IMAGE_FOLDER", help="ImageNet's folder with train/ and val/.")
]
Folder = Annotated[Path | None, typer.Option(help="Folder of the data set's own files or images.")]
Datasets = Annotated[
    str, typer.Option(envvar="EAST_DATASETS", hidden=True, help="JSON of data sets; the workflow gives it.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", envvar="EAST_PLUGINS", help="Where a plugin may be; may be given several times."),
]
Results = Annotated[
    Path | None, typer.Option("--results", help="Folder of the results; results/<name> of the configuration if absent.")
]
Device = Annotated[DeviceName, typer.Option(envvar="EAST_DEVICE", help="What computes.")]
Engine = Annotated[EngineName, typer.Option(envvar="EAST_ENGINE", help="What executes the network.")]
Step = Annotated[
    StepName, typer.Option("--step", envvar="EAST_STEP", help="How a GPU is given the operations of a step.")
]
Threads = Annotated[int, typer.Option(min=1, callback=lambda asked: check_threads(asked, CORES), help="CPU threads.")]
OtherThreads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=lambda asked: asked and check_threads(asked, CORES),
        help="CPU threads of a run; the configuration's.",
    ),
]
RunsPerGpu = Annotated[
    int, typer.Option(envvar="EAST_RUNS_PER_GPU", min=1, help="Trainings that may share a GPU at the same time.")
]


def images_and_folder(
    name: str, datasets: str, given: Path | None, image_folder: Path | None, images: "ImagesSpec | None" = None
) -> "tuple[ImagesSpec, Path | None]":
    """What a data set is, and the folder of its files, from what the command line and the workflow say.

    Args:
        name: of the data set, or of its store.
        datasets: JSON of the workflow: store -> `images` and `folder`.
        given: the folder that the command line names.
        image_folder: of ImageNet.
        images: what it is, where that is known.

    Raises:
        EastError: there is no such data set.
    """
    from east.config.run import ImagesSpec
    from east.data.catalog import of_name

    found = parsed("EAST_DATASETS", json.loads, datasets).get(name, {})
    if images is None:
        images = ImagesSpec.model_validate(found["images"]) if found else of_name(name)
    configured = found.get("folder")
    folder = given or (Path(configured) if configured else None)
    return images, folder or (image_folder if images.name == "imagenet" else None)


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option's JSON describes; `-` stands for standard input, where a plan of any size fits.

    Raises:
        EastError: it is not JSON, or describes something else.
    """
    from pydantic import ValidationError

    try:
        return parse(sys.stdin.buffer.read().decode() if text == "-" else text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        raise EastError(f"{option}: {key}: {first['msg']}.") from None
    except RecursionError:
        raise EastError(f"{option} is nested too deeply.") from None
    except ValueError as error:
        raise EastError(f"{option} is not JSON: {error}.") from None


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    # JSON escapes all that is invisible but for this one.
    say(*json.dumps(value, indent=2).replace("\x7f", r"\u007f").split("\n"))


def print_table(columns: list[str], rows: list[dict[str, object]], left: int | None = None) -> None:
    """Print some columns of rows, aligned to the left, or only so many of them; the others to the right."""
    cells = [columns, *([visible(str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        aligned = [text.ljust(width) for text, width in zip(row, widths, strict=True)][:left]
        aligned += [text.rjust(width) for text, width in zip(row, widths, strict=True)][len(aligned) :]
        say("  ".join(aligned).rstrip())


def counted(number: int, what: str) -> str:
    """A number of things, in the plural where there is not one."""
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}" if number == 1 else f"{number} {what}{plural}"
