"""Time and memory of real training steps on this machine, in a process of their own."""

import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from east.config.run import RunSpec
from east.cost.clock import seconds_of_each, settling_steps
from east.cost.worker import workers
from east.data.catalog import DATASETS
from east.errors import EastError
from east.models.dyrelu import retire_dyrelu
from east.seeding import torch_generator
from east.training.assembly import assemble, initial_model
from east.training.captured import StepKind, choose_step
from east.training.describe import mask_updater
from east.training.device import choose_device, forget_peak, keep_freed_memory, peak_memory_mb, resident_memory_mb
from east.training.provenance import device_name

WARM_UP_STEPS = 2
"""Least steps before the clock starts: they allocate gradients and momentum and let libraries choose algorithms."""

T = TypeVar("T")

MakeStep = Callable[[], Callable[[int], Any]]
"""Prepares a training step in the process that runs it; picklable. The step takes its number, counted from 1."""


@dataclass(frozen=True)
class Measurement:
    """What some training steps took.

    Args:
        seconds_per_step: median over the steps.
        seconds_spread: difference between the upper and the lower quartile.
        peak_memory_mb: most memory held at once since before the network was built: of the GPU, or of the process.
        steps: steps timed.
        batch_size: images a step.
        measured_on: processor or GPU, with the number of threads for a processor.
    """

    seconds_per_step: float
    seconds_spread: float
    peak_memory_mb: float
    steps: int
    batch_size: int
    measured_on: str


def measure_training(
    spec: RunSpec,
    *,
    batch_size: int,
    steps: int,
    device: str = "auto",
    engine: str = "auto",
    step: str = "auto",
    threads: int = 1,
    faded: bool = False,
) -> Measurement:
    """Time the training step of a run, with its masks of the start, on random images.

    Args:
        spec: the run.
        batch_size: images a step; need not be the recipe's.
        steps: steps to time, after some that are not.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        step: `auto` or the name of a way to execute a step.
        threads: CPU threads of PyTorch.
        faded: whether DyReLU is a plain ReLU already.

    Raises:
        EastError: the device is not there, or memory does not suffice.
    """
    where = choose_device(device)
    kind = choose_step(step, where)
    make = partial(make_training_step, spec, batch_size=batch_size, device=where, engine=engine, kind=kind, faded=faded)
    clip = spec.training.gradient_clip
    warm_up = max(WARM_UP_STEPS, settling_steps(kind, 1 if clip is None else clip.every))
    seconds, peak = measure_steps(make, steps=steps, device=where, threads=threads, warm_up=warm_up)
    lower, _, upper = statistics.quantiles(seconds, n=4, method="inclusive") if steps > 1 else (0.0, 0.0, 0.0)
    machine = device_name(where)
    if where.type == "cpu":
        machine += f", {threads} thread{'s' if threads > 1 else ''}"
    else:
        machine += f", step: {kind}"
    return Measurement(
        seconds_per_step=statistics.median(seconds),
        seconds_spread=upper - lower,
        peak_memory_mb=peak,
        steps=steps,
        batch_size=batch_size,
        measured_on=f"{machine}, engine: {engine}",
    )


def make_training_step(
    spec: RunSpec, *, batch_size: int, device: torch.device, engine: str, faded: bool, kind: StepKind = "eager"
) -> Callable[[int], object]:
    """The step of a run as the trainer makes it between mask updates, bound to one random batch; takes its number."""
    info = DATASETS[spec.dataset.name]
    model = initial_model(spec, info.num_classes)
    if faded:
        retire_dyrelu(model)
    model.to(device)
    # The length of an epoch only times mask updates, and none falls into the measured steps.
    masks = mask_updater(model, spec, steps_per_epoch=1)
    masks.initialise()
    training = spec.training.model_copy(update={"batch_size": batch_size})
    own = spec.model_copy(update={"training": training})
    step = assemble(own, model, masks, device=device, engine=engine, kind=kind).step
    draw = torch_generator(spec.seed, "cost")
    images = torch.randn(batch_size, *info.image_shape, generator=draw)
    labels = torch.randint(info.num_classes, (batch_size,), generator=draw)
    return partial(step, images.to(device), labels.to(device), spec.training.lr, dense_gradients=False)


def measure_steps(
    prepare: MakeStep, *, steps: int, device: torch.device, threads: int, warm_up: int = WARM_UP_STEPS
) -> tuple[list[float], float]:
    """Run a step several times in a fresh process, so that nothing that ran before counts in its memory.

    Args:
        prepare: called there once; returns the step.
        steps: how often the step is timed.
        device: where the step computes.
        threads: CPU threads of PyTorch.
        warm_up: how often it is made before that.

    Returns:
        Seconds of each step, and the peak memory in MB: all that the step and its preparation needed.

    Raises:
        EastError: the process was killed, as it is when memory runs out.
    """
    try:
        return in_fresh_process(partial(_run_steps, prepare, steps, device, threads, warm_up))
    except (BrokenProcessPool, torch.OutOfMemoryError) as error:
        raise EastError(
            "the measured training step did not fit into memory. Choose a smaller batch in 'cost.measured_batch'."
        ) from error


def in_fresh_process(run: Callable[[], T]) -> T:
    """What a function returns in a process that has imported PyTorch and done nothing else.

    Args:
        run: can be pickled, as can what it returns.
    """
    # Processes of such a server start at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with workers(1, context) as process:
        return process.submit(run).result()


def _run_steps(
    prepare: MakeStep, steps: int, device: torch.device, threads: int, warm_up: int
) -> tuple[list[float], float]:
    torch.set_num_threads(threads)
    keep_freed_memory()
    forget_peak()  # that of the imports
    memory_before = resident_memory_mb() if device.type == "cpu" else 0.0
    step = prepare()
    for number in range(1, warm_up + 1):
        step(number)
    seconds = seconds_of_each(step, range(warm_up + 1, warm_up + steps + 1), device)
    return seconds, peak_memory_mb(device) - memory_before
