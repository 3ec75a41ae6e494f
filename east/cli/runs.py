"""Commands that do the work: prepare data, train a run, measure costs."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from east.checkout import sources
from east.cli.common import (
    CORES,
    AsJson,
    ChangedPluginName,
    ConfigFiles,
    DataDir,
    Datasets,
    Device,
    DeviceName,
    Engine,
    EngineName,
    Folder,
    ImageFolder,
    Plugins,
    RunsPerGpu,
    Step,
    StepName,
    Threads,
    TrackingName,
    complete_dataset,
    complete_network,
    images_and_folder,
    parsed,
    print_json,
    print_table,
)
from east.errors import EastError
from east.files import read_regular, write_atomically
from east.launch.lease import Lease, gpu_alone, leased_gpu
from east.shown import say

if TYPE_CHECKING:
    from east.config import RunSpec
    from east.training.records import RunSummary


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set: see `east list datasets`, or those of the configuration.",
            autocompletion=complete_dataset,
        ),
    ],
    configfile: ConfigFiles = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="EAST_DATA_DIR", help="Where prepared data sets are; the configuration's if absent, or data."
        ),
    ] = None,
    folder: Folder = None,
    image_folder: ImageFolder = None,
    plugin: Plugins = None,
    datasets: Datasets = "{}",
) -> None:
    """Download (where needed), verify and store a data set for training.

    With --configfile it is the data set that the configuration calls so, with its folders and its plugin.
    """
    from east.config import read_config
    from east.config.datasets import images_of
    from east.data.prepare import prepare as prepare_dataset

    places, described = list(plugin or ()), None
    if configfile:
        config = read_config(*configfile)
        if dataset not in config.datasets:
            raise EastError(f"there is no data set '{dataset}' in `datasets`: {', '.join(config.datasets)}.")
        described = images_of(config, dataset)
        places += config.catalogue.paths.values()
        configured = config.datasets[dataset].folder
        folder = folder or (Path(configured) if configured else None)
        data_dir = data_dir or Path(config.execution.data_dir)
    images, where = images_and_folder(dataset, datasets, folder, image_folder, described)
    say(prepare_dataset(images, data_dir or Path("data"), folder=where, plugins=places))


def train(
    run: Annotated[str, typer.Option(help="The resolved run: JSON, or a file that holds it.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; a checkpoint of the same run in it is resumed.")],
    data_dir: DataDir = Path("data"),
    folder: Folder = None,
    image_folder: ImageFolder = None,
    device: Device = "auto",
    engine: Engine = "auto",
    step: Step = "auto",
    threads: Threads = CORES,
    runs_per_gpu: RunsPerGpu = 1,
    tracking: Annotated[
        TrackingName, typer.Option(envvar="EAST_TRACKING", help="Event files in the folder of the run.")
    ] = "none",
    plugin: Plugins = None,
    changed_plugin: Annotated[
        ChangedPluginName,
        typer.Option(envvar="EAST_CHANGED_PLUGIN", help="With a checkpoint made by another content of a plugin."),
    ] = "refuse",
    datasets: Datasets = "{}",
    total: Annotated[
        int | None, typer.Option(envvar="EAST_PLANNED_RUNS", help="Runs of the whole plan, to show the share done.")
    ] = None,
) -> None:
    """Train one run from its description alone and print one line about the result.

    SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU stop it after the step in hand, with a checkpoint,
    and it exits with 128 + the signal's number; the same command goes on from there. A second signal, more than a
    second after the first, ends it at once.
    """
    # First of all: the modules that decide numbers are not imported yet, and what waits below may take hours.
    began = sources()
    from east.training.progress import finished_line

    spec = _read_spec(run)
    beside = (Path(run).absolute().parent,) if _is_file(run) else ()
    summary = train_here(
        spec,
        out,
        began,
        data_dir=data_dir,
        folder=folder,
        image_folder=image_folder,
        datasets=datasets,
        device=device,
        engine=engine,
        step=step,
        threads=threads,
        runs_per_gpu=runs_per_gpu,
        tracking=tracking,
        plugins=(*(plugin or ()), *beside),
        changed_plugin=changed_plugin,
    )
    say(finished_line(summary, out, total))


def train_here(
    spec: "RunSpec",
    out: Path,
    began: Mapping[str, str],
    *,
    data_dir: Path,
    folder: Path | None,
    image_folder: Path | None,
    datasets: str = "{}",
    device: DeviceName,
    engine: EngineName,
    step: StepName = "auto",
    threads: int,
    runs_per_gpu: int = 1,
    tracking: TrackingName = "none",
    plugins: tuple[Path, ...] = (),
    changed_plugin: ChangedPluginName = "refuse",
) -> "RunSummary":
    """Prepare the data of a run, wait for a GPU where it needs one, and train it in this process.

    Args:
        spec: the run.
        out: its folder.
        began: `east.checkout.sources`, taken before anything was imported that decides numbers.
        data_dir: where prepared data sets are.
        folder: of the data set's own files or images.
        image_folder: ImageNet's folder, where that is the data set.
        datasets: JSON of data sets and their folders, from the workflow.
        device: what computes.
        engine: what executes the network.
        step: how a GPU is given the operations of a step.
        threads: CPU threads.
        runs_per_gpu: trainings that may share a GPU.
        tracking: event files in the run's folder.
        plugins: where the run's plugins may be.
        changed_plugin: what a checkpoint of another content of a plugin is for.
    """
    from east.training.interrupt import Interruption

    interruption = Interruption()
    with interruption.listening(), _place_for(spec, out, device, runs_per_gpu) as lease:
        from east.data.catalog import is_streamed
        from east.data.manifest import MANIFEST_FILE
        from east.data.prepare import prepare as prepare_dataset
        from east.training.progress import epoch_reporter
        from east.training.run import Resources
        from east.training.run import train as train_run
        from east.training.tracking import epoch_tracker

        images, where = images_and_folder(spec.dataset.store, datasets, folder, image_folder, spec.dataset.images)
        is_there = (data_dir / images.store / MANIFEST_FILE).is_file()
        if not is_there or not is_streamed(images):
            # What is missing or damaged is made again; to look at a folder of images twice would take minutes.
            places = (*plugins, out, Path(), Path("config"))
            prepare_dataset(images, data_dir, folder=where, plugins=places)
        resources = Resources(
            device,
            engine,
            threads,
            data_dir,
            where,
            lease.gpu,
            lease.runs,
            step,
            plugins=plugins,
            changed_plugin=changed_plugin,
        )
        with (
            epoch_reporter("/".join(out.absolute().parts[-3:]), spec.training.epochs) as show,
            epoch_tracker(tracking, out) as track,
        ):
            return train_run(spec, out, resources, [show, track, interruption], began=began)


def cost(
    model: Annotated[
        str | None,
        typer.Option(help="Network; that of `cost` in the configuration if absent.", autocompletion=complete_network),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set; that of `cost` in the configuration if absent.", autocompletion=complete_dataset),
    ] = None,
    configfile: ConfigFiles = None,
    as_json: AsJson = False,
    request: Annotated[str | None, typer.Option(hidden=True, help="What to measure; the workflow gives it.")] = None,
    results: Annotated[
        Path | None, typer.Option(envvar="EAST_RESULTS", hidden=True, help="Where the workflow wants it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    step: Step = "auto",
    threads: Threads = CORES,
    runs_per_gpu: RunsPerGpu = 1,
    measure: Annotated[bool, typer.Option(help="Time training steps on this machine as well.")] = True,
) -> None:
    """Table 6: what each method costs, by the paper's accounting and in truth."""
    from east.analysis.sources import Request, Sources
    from east.config import read_config
    from east.config.plan import cost_plan
    from east.config.tables import CostPlan
    from east.render.cost import costs_json

    asked = None if request is None else parsed("--request", Request.model_validate_json, request)
    if asked is None:
        what = cost_plan(read_config(*(configfile or [])), model, dataset)
    else:
        what = CostPlan.model_validate(asked.of["cost_plan"])
    on_gpu = measure and device != "cpu"
    with gpu_alone(runs_per_gpu, wait=True) if on_gpu else nullcontext(Lease()) as lease:
        from east.cost.table6 import measured_cost

        if lease.is_shared:
            logging.getLogger(__name__).warning(
                "no steps are timed: Slurm has given this job a part of a GPU only, and what other jobs do there would "
                "count."
            )
        measure = measure and not lease.is_shared
        rows = measured_cost(what, device=device, engine=engine, threads=threads, step=step, measure=measure)
    if asked is not None and results is not None:
        Sources(results).write(asked, {results / "cost" / "cost.json": costs_json(rows)})
    elif out is not None:
        write_atomically(out, costs_json(rows))
    elif as_json:
        print_json(rows)
    else:
        columns = ["method", "param_size_mb", "est_total_mb", "trainable_parameters", "nonzeros", "seconds_per_step"]
        print_table(columns, [row | {key: f"{row[key]:.2f}" for key in columns[1:3]} for row in rows])


def _place_for(spec: "RunSpec", out: Path, device: str, runs_per_gpu: int) -> AbstractContextManager[Lease]:
    """The GPU of a run that needs one; where another process trains the run, none is held until that has ended."""
    if out.is_dir():
        from east.training.folder import finished_summary, locked

        with locked(out):
            if finished_summary(out, spec.fingerprint) is not None:
                return nullcontext(Lease())
    return nullcontext(Lease()) if device == "cpu" else leased_gpu(runs_per_gpu)


def _is_file(run: str) -> bool:
    """Whether `--run` names a file and is not JSON itself."""
    return not run.lstrip().startswith("{")


def _read_spec(text: str) -> "RunSpec":
    from east.config import RunSpec

    try:
        content = read_regular(Path(text)).decode() if _is_file(text) else text
    except OSError as error:
        raise EastError(f"--run: {text} cannot be read ({error.strerror}).") from None
    return parsed("--run", RunSpec.model_validate_json, content)
