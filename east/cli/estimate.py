"""The command that says beforehand what a plan will cost."""

import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from east.cli.common import (
    CORES,
    AsJson,
    ConfigFiles,
    DeviceName,
    EngineName,
    OtherThreads,
    Results,
    StepName,
    counted,
    print_json,
    print_table,
    read_plan_and_results,
)
from east.launch.cores import training_threads
from east.launch.lease import Lease, gpu_alone, visible_gpus
from east.shown import say

if TYPE_CHECKING:
    from east.cost.timing import Conditions
    from east.operations.estimate import Cost, Estimate, Parallelism

SECONDS_PER_HOUR = 3600
WIDTH = 100


def estimate(
    configfile: ConfigFiles = None,
    results: Results = None,
    as_json: AsJson = False,
    cores: Annotated[int, typer.Option(min=1, help="Cores of this machine that runs may use.")] = CORES,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs that runs may use; all there are if absent.")] = None,
    runs_per_gpu: Annotated[
        int | None, typer.Option(envvar="EAST_RUNS_PER_GPU", min=1, help="Runs that share a GPU; the configuration's.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once on a cluster; as many as this machine takes if absent.")
    ] = None,
    device: Annotated[
        DeviceName | None, typer.Option(envvar="EAST_DEVICE", help="What computes; the configuration's if absent.")
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(envvar="EAST_ENGINE", help="What executes the network; the configuration's if absent."),
    ] = None,
    step: Annotated[
        StepName | None,
        typer.Option(
            envvar="EAST_STEP", help="How a GPU is given the operations of a step; the configuration's if absent."
        ),
    ] = None,
    threads: OtherThreads = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long each kind of run is timed.")] = 3.0,
) -> None:
    """Say what the rest of the plan will cost, from a few steps of each kind of run, timed on this machine.

    Nothing is trained, and no data are needed. What is done already is left out, and a run with a checkpoint counts
    from there.
    """
    from rich.console import Console

    from east.operations.ready import check_ready

    plan, folder = read_plan_and_results(configfile, results)
    check_ready(plan, Path.cwd())
    execution = plan.config.execution
    device, engine = device or execution.device, engine or execution.engine
    threads = threads or training_threads(execution.threads, runs=len(plan.runs), cores=cores, engine=engine)
    runs_per_gpu = runs_per_gpu or execution.runs_per_gpu
    # All of them count, though steps are timed on one.
    gpus = gpus or len(visible_gpus(os.environ)) or None
    with nullcontext(Lease()) if device == "cpu" else gpu_alone(runs_per_gpu, wait=False) as lease:
        from east.cost.timing import Conditions
        from east.operations.estimate import estimate as estimate_plan
        from east.operations.estimate import find_parallelism
        from east.training.device import choose_device
        from east.training.provenance import device_name

        at_once = find_parallelism(
            device, cores=cores, threads=threads, gpus=gpus, runs_per_gpu=runs_per_gpu, jobs=jobs
        )
        conditions = Conditions(device, engine, threads, at_once.sharing, seconds, step or execution.step)
        measured_on = device_name(choose_device(device))
        with Console(stderr=True).status("looking for what is done") as status:
            found = estimate_plan(plan, folder, conditions, at_once, status.update)
    if as_json:
        print_json(_as_json(found, at_once, conditions, measured_on, disturbed=lease.is_shared))
    else:
        rows = [_row(name, cost, at_once) for name, cost in (*found.tables.items(), ("total", found.total))]
        print_table(list(rows[0]), rows, left=1)
        for paragraph in _explanation(found, at_once, conditions, measured_on, disturbed=lease.is_shared):
            say("", *textwrap.wrap(paragraph, WIDTH))
    for warning in found.warnings:
        logging.getLogger(__name__).warning(warning.removeprefix("warning: "))


def _explanation(
    found: "Estimate", at_once: "Parallelism", conditions: "Conditions", measured_on: str, *, disturbed: bool
) -> Iterator[str]:
    """What the numbers mean and how far they can be trusted, in paragraphs."""
    from rich.filesize import decimal

    from east.data.catalog import info_of, is_streamed

    if not found.total.left:
        yield "Everything is done."
        return
    data = f", and data that are not prepared yet {decimal(found.data_bytes)}" if found.data_bytes else ""
    yield (
        f"Wall time: {counted(at_once.runs, 'run')} at once, {counted(conditions.threads, 'thread')} each; that of a "
        f"table if nothing but it runs. Disk: what runs leave behind; checkpoints take up to "
        f"{decimal(found.checkpoint_bytes)} more while they go on{data}."
    )
    yield (
        f"This is an estimate. Steps, mask updates, evaluations and checkpoints of {counted(len(found.kinds), 'kind')} "
        f"of run were timed on random images, {counted(at_once.sharing, 'process')} at a time, on {measured_on}, "
        f"engine {conditions.engine}; so was the start of a run, {found.start_seconds:.1f} s on average. How learning "
        "moves the masks, and what else the machine will do, nobody knows yet. Data, tables and figures come on top."
    )
    if disturbed:
        yield (
            "No GPU was free: others used this one while steps were timed there, so all times are too long. Repeat it "
            "when nothing else runs."
        )
    if streamed := {info_of(kind.dataset).label for kind in found.kinds if is_streamed(kind.dataset)}:
        yield f"Reading {', '.join(sorted(streamed))}'s files takes time that is not counted."
    extrapolated = sum(timed.batch < kind.training.batch_size for kind, (_, timed) in found.kinds.items())
    if extrapolated:
        yield (
            f"Steps of {counted(extrapolated, 'kind')} take so long that their time was extrapolated from steps on "
            "fewer images; --seconds gives them more time."
        )


def _row(name: str, cost: "Cost", at_once: "Parallelism") -> dict[str, object]:
    from rich.filesize import decimal

    from east.render.numbers import duration

    hours = cost.seconds * at_once.units_per_run / SECONDS_PER_HOUR
    return {
        "table": name,
        "runs": cost.runs,
        "done": cost.runs - cost.left,
        "left": cost.left,
        f"{at_once.unit}-hours": f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}",
        "wall time": duration(cost.wall_seconds),
        "disk": decimal(cost.disk_bytes),
    }


def _as_json(
    found: "Estimate", at_once: "Parallelism", conditions: "Conditions", measured_on: str, *, disturbed: bool
) -> dict[str, Any]:
    from east.operations.kinds import describe_kind

    def row(cost: "Cost") -> dict[str, Any]:
        hours = cost.seconds * at_once.units_per_run / SECONDS_PER_HOUR
        return asdict(cost) | {"done": cost.runs - cost.left, "hours": hours}

    return {
        "unit": at_once.unit,
        "runs_at_once": at_once.runs,
        "timed_at_once": at_once.sharing,
        "threads": conditions.threads,
        "engine": conditions.engine,
        "step": conditions.step,
        "measured_on": measured_on,
        "disturbed": disturbed,
        "tables": {table: row(cost) for table, cost in found.tables.items()},
        "total": row(found.total),
        "start_seconds": found.start_seconds,
        "checkpoint_bytes": found.checkpoint_bytes,
        "data_bytes": found.data_bytes,
        "run_seconds": found.run_seconds,
        "kinds": [
            {
                "name": describe_kind(kind),
                "runs": runs,
                "batch": kind.training.batch_size,
                "timed_batch": timed.batch,
                "build": timed.build,
                "save": timed.save,
                "parts": [asdict(situation) | asdict(parts) for situation, parts in timed.timed.items()],
            }
            for kind, (runs, timed) in found.kinds.items()
        ],
        "warnings": found.warnings,
    }
