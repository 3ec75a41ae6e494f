"""Time and memory of real training steps on this machine, on random images, in a process of their own."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.context import BaseContext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from east.config.run import PhasingSpec, RunSpec
from east.cost.worker import workers
from east.data.catalog import info_of
from east.data.images import Images
from east.data.open import Splits, split_images
from east.engine.base import KernelsUnavailable
from east.engine.choose import machine_costs
from east.engine.cpu.library import load_kernels
from east.errors import EastError
from east.seeding import torch_generator
from east.training.assembly import Training
from east.training.captured import StepKind, choose_step
from east.training.device import choose_device, forget_peak, keep_freed_memory, peak_memory_mb, resident_memory_mb
from east.training.loop import fade_dyrelu
from east.training.provenance import device_name

WARM_UP_STEPS = 2
"""Least steps before the clock starts: they allocate gradients and momentum and let libraries choose algorithms."""

SETTLING_TURNS = {"eager": 1, "captured": 3, "compiled": 3}
"""Way to execute a step -> how often each kind of step is made before its time counts: it takes memory and lets
libraries choose their algorithms, then it is recorded, then repeated for the first time."""

MILLISECONDS = 1000
"""In a second."""

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Of the pixels of random images; any will do."""

Moment = float | torch.cuda.Event
"""See `now`."""

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
        measured_batch_size: images a step.
        measured_on: processor or GPU, with the number of threads for a processor.
    """

    seconds_per_step: float
    seconds_spread: float
    peak_memory_mb: float
    steps: int
    measured_batch_size: int
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
    warm_up = max(WARM_UP_STEPS, settling_steps(kind, spec))
    seconds, peak = measure_steps(make, steps=steps, device=where, threads=threads, warm_up=warm_up)
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if steps > 1 else seconds
    machine = device_name(where)
    if where.type == "cpu":
        machine += f", {threads} thread{'s' if threads > 1 else ''}"
    else:
        machine += f", step: {kind}"
    return Measurement(
        seconds_per_step=statistics.median(seconds),
        seconds_spread=quartiles[-1] - quartiles[0],
        peak_memory_mb=peak,
        steps=steps,
        measured_batch_size=batch_size,
        measured_on=f"{machine}, engine: {engine}",
    )


def make_training_step(
    spec: RunSpec, *, batch_size: int, device: torch.device, engine: str, faded: bool, kind: StepKind = "eager"
) -> Callable[[int], object]:
    """The step of a run as the trainer makes it between mask updates, bound to one random batch; takes its number."""
    own = in_phase(with_batch_size(spec, batch_size), dynamic=not faded)
    data = one_batch(own, device)
    training = Training.begin(own, data, device=device, engine=engine, kind=kind)
    fade_dyrelu(training, epoch=1)
    images, labels = next(iter(data.train.epoch(1)))
    return partial(training.parts.step, images, labels, spec.training.lr, dense_gradients=False)


def one_batch(spec: RunSpec, device: torch.device) -> Splits:
    """Random images that make one training batch of the run: the one that measured steps take."""
    return random_images(spec, device, training=spec.training.batch_size, evaluation=1)


def with_batch_size(spec: RunSpec, batch_size: int) -> RunSpec:
    """The run with batches of another size."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"batch_size": batch_size})})


def in_phase(spec: RunSpec, *, dynamic: bool) -> RunSpec:
    """The run with DyReLU, if it has any, active all the time, or a plain ReLU from the first epoch on."""
    return spec.model_copy(update={"phasing": None if dynamic else PhasingSpec(start=0, end=0)})


def random_images(spec: RunSpec, device: torch.device, *, training: int, evaluation: int) -> Splits:
    """Random images of the shape of a run's, served like those.

    Args:
        spec: the run.
        device: where batches are made.
        training: how many are trained on.
        evaluation: how many are held out for validation, and for testing, at most.
    """
    info = info_of(spec.dataset)
    held_out, tested = min(spec.dataset.validation, evaluation), min(info.test_images, evaluation)
    draw = torch_generator(spec.seed, "cost")

    def images(count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(256, (count, *info.image_shape), generator=draw, dtype=torch.uint8)
        return pixels, torch.randint(info.num_classes, (count,), generator=draw)

    data = Images(*images(training + held_out), *images(tested), MEAN, STD, info.num_classes, digest="random")
    dataset = spec.dataset.model_copy(update={"validation": held_out})
    return split_images(data, dataset, spec.training.batch_size, spec.seed, device)


def prepare_costs(device: torch.device, numerics: str, compiled: bool) -> None:
    """Compile kernels and, for a GPU, fit the cost model, where that was not done yet."""
    with suppress(KernelsUnavailable):
        if device.type == "cpu":
            load_kernels()
        else:
            machine_costs(device, numerics, compiled=compiled)


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
    with workers(1, _context()) as process:
        return process.submit(run).result()


def _context() -> BaseContext:
    """How such processes start: from a server that has imported PyTorch, and so at once.

    On macOS, what PyTorch uses of the system does not survive a fork: there each imports it anew.
    """
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run_steps(
    prepare: MakeStep, steps: int, device: torch.device, threads: int, warm_up: int
) -> tuple[list[float], float]:
    torch.set_num_threads(threads)
    keep_freed_memory()
    forget_peak()  # of the imports
    memory_before = resident_memory_mb() if device.type == "cpu" else 0.0
    step = prepare()
    for number in range(1, warm_up + 1):
        step(number)
    seconds = seconds_of_each(step, range(warm_up + 1, warm_up + steps + 1), device)
    return seconds, peak_memory_mb(device) - memory_before


def settling_steps(kind: StepKind, spec: RunSpec) -> int:
    """Steps of a run before the clock starts; of as many as its clip says, one measures the norm and differs."""
    clip = spec.training.gradient_clip
    return SETTLING_TURNS[kind] * (1 if clip is None else clip.every)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall time until something is done, on the device as well."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def now(device: torch.device) -> Moment:
    """This moment: of the clock on the wall, or on a GPU when the device has done all that it was given.

    Nothing waits: the CPU runs ahead of a GPU, as it does in a training.
    """
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(began: Moment, ended: Moment) -> float:
    """Seconds between two moments of one device, which is waited for."""
    if isinstance(began, float) or isinstance(ended, float):
        return cast(float, ended) - cast(float, began)
    ended.synchronize()
    return float(began.elapsed_time(ended)) / MILLISECONDS


def seconds_of_each(step: Callable[[int], object], numbers: Iterable[int], device: torch.device) -> list[float]:
    """Seconds of each of some steps, made one after the other as in a training."""
    synchronize(device)
    moments = [now(device)]
    for number in numbers:
        step(number)
        moments.append(now(device))
    return [seconds_between(began, ended) for began, ended in pairwise(moments)]
