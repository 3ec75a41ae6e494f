"""Seconds of the parts that a training is made of, on this machine: steps, mask updates, evaluations, checkpoints."""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from east.config.run import RunSpec
from east.cost.timed_training import TimedTraining
from east.cost.worker import workers
from east.engine.base import KernelsUnavailable
from east.engine.choose import machine_costs
from east.engine.cpu.library import load_kernels
from east.errors import EastError
from east.training.captured import choose_step
from east.training.device import choose_device, keep_freed_memory

WINDOWS, STEP_WINDOWS = 4, 2
"""Of the time for a moment of a kind, half goes to steps, the rest to updates and evaluations."""


@dataclass(frozen=True)
class Conditions:
    """How the timed parts execute: as the runs of the plan will.

    Args:
        device: `auto`, `cpu` or `cuda`.
        engine: `auto` or the name of an engine.
        threads: CPU threads of PyTorch.
        side_by_side: processes that time at once, as many as there will be runs at once on this machine.
        seconds: about how long a kind of run is timed, one process working on it.
        step: `auto` or the name of a way to execute a step.
    """

    device: str
    engine: str
    threads: int
    side_by_side: int
    seconds: float
    step: str = "auto"


@dataclass(frozen=True)
class PartSeconds:
    """Seconds of the parts of a training at one density.

    Args:
        step: an optimizer step, its batch included.
        dense_gradients: what a step takes longer that finds the gradients of off weights too.
        update: a change of the masks, and what the step after it takes longer.
        evaluation: the accuracy on all validation and test images.
    """

    step: float
    dense_gradients: float
    update: float
    evaluation: float


@dataclass(frozen=True)
class KindTimes:
    """What was timed of a kind of run.

    Args:
        build: seconds to make network, masks, engine and optimizer.
        save: seconds to write a checkpoint and the records of an epoch.
        checkpoint_bytes: size of the largest checkpoint.
        batch: images that the timed steps had, the fewest of all densities; fewer than the run's where steps are slow.
        parts: (whether DyReLU is active, density) -> seconds.
    """

    build: float
    save: float
    checkpoint_bytes: int
    batch: int
    parts: Mapping[tuple[bool, float], PartSeconds]


Moments = Mapping[bool, Sequence[float]]
"""With DyReLU active, and without: the densities at which a kind is timed."""


def time_kinds(
    kinds: Sequence[tuple[RunSpec, Moments]],
    conditions: Conditions,
    folder: Path,
    report: Callable[[], None] = lambda: None,
) -> list[list[KindTimes]]:
    """Time kinds of runs in fresh processes, as many at once as runs will share this machine.

    Processes that have nothing left to time begin with the first kinds again, so that the load stays the same until the
    last kind is timed.

    Args:
        kinds: of each kind a run, and when it is timed.
        conditions: device, engine, threads and processes.
        folder: for checkpoints, on the disk where those of runs will be; they are removed.
        report: called whenever a kind is timed.

    Returns:
        For each kind what was found in each process that timed it, one at least.

    Raises:
        EastError: the device or engine is not there, or memory does not suffice.
    """
    tasks = [*range(len(kinds)), *(i % len(kinds) for i in range(conditions.side_by_side - 1))]
    found: list[list[KindTimes]] = [[] for _ in kinds]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".estimate.") as scratch,
        workers(conditions.side_by_side, context) as processes,
    ):
        timings = [partial(time_kind, spec, moments, conditions, Path(scratch)) for spec, moments in kinds]
        futures = [processes.submit(timings[task]) for task in tasks]
        try:
            for task, future in zip(tasks, futures, strict=True):
                found[task].append(future.result())
                report()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise EastError(
                f"{conditions.side_by_side} runs at once did not fit into memory. Let fewer run at once: give fewer "
                "--cores, more --threads or fewer --runs-per-gpu."
            ) from error
        finally:
            processes.shutdown(cancel_futures=True)
    return found


def time_kind(spec: RunSpec, moments: Moments, conditions: Conditions, folder: Path) -> KindTimes:
    """Time the parts of one kind of run in this process.

    Args:
        spec: a run of the kind; its density and schedule do not matter.
        moments: when it is timed.
        conditions: device, engine, threads and time to spend.
        folder: for a checkpoint.

    Raises:
        EastError: the device or engine is not there.
    """
    torch.set_num_threads(conditions.threads)
    keep_freed_memory()
    device = choose_device(conditions.device)
    kind = choose_step(conditions.step, device)
    if conditions.engine == "auto" or (conditions.engine == "sparse" and device.type == "cpu"):
        # It happens once, not in every run.
        prepare_costs(device, spec.training.numerics, kind == "compiled")
    first = next(values[0] for values in moments.values() if values)
    training = TimedTraining(at_density(spec, first), device, conditions.engine, kind)
    window = conditions.seconds / sum(len(values) for values in moments.values()) / WINDOWS
    parts: dict[tuple[bool, float], PartSeconds] = {}
    batches = []
    for dynamic in sorted(moments, reverse=True):  # DyReLU retires for good
        if not dynamic:
            training.retire_dyrelu()
        updates = None
        for density in training.worth_timing(moments[dynamic]):
            training.set_density(density)
            step = training.time_step(STEP_WINDOWS * window, conditions.seconds)
            evaluation = training.time_evaluation(window)
            # What an update takes is looking at all positions, whatever the density.
            updates = updates or training.time_update(window)
            parts[dynamic, density] = PartSeconds(step, *updates, evaluation)
            batches.append(training.batch)
    save, size = training.time_save(folder, window)
    return KindTimes(training.build_seconds, save, size, min(batches), parts)


def at_density(spec: RunSpec, density: float) -> RunSpec:
    """The run with another target density."""
    return spec.model_copy(update={"sparsity": spec.sparsity.model_copy(update={"density": density})})


def prepare_costs(device: torch.device, numerics: str, compiled: bool) -> None:
    """Compile kernels and, for a GPU, fit the cost model, where that was not done yet.

    Args:
        device: on which steps execute.
        numerics: `tf32`, `fp32` or `bf16`.
        compiled: whether PyTorch compiles the network for the dense engine.
    """
    with suppress(KernelsUnavailable):
        if device.type == "cpu":
            load_kernels()
        else:
            machine_costs(device, numerics, compiled=compiled)
