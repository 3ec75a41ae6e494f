"""Seconds of the parts that a training is made of, on this machine: the training loop itself, clocked for a while."""

import itertools
import math
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from east.config.run import RunSpec
from east.cost.flops import layer_work, training_flops
from east.cost.measure import (
    Moment,
    in_phase,
    now,
    prepare_costs,
    random_images,
    seconds_between,
    settling_steps,
    synchronize,
)
from east.cost.worker import workers
from east.data.batches import EVALUATION_BATCH
from east.data.catalog import info_of
from east.errors import EastError
from east.training.assembly import Training
from east.training.attempts import AttemptLog
from east.training.captured import StepKind, choose_step
from east.training.checkpoint import Checkpoints
from east.training.describe import engine_of_run, network_shape
from east.training.device import choose_device, keep_freed_memory
from east.training.folder import CHECKPOINTS
from east.training.hooks import Hook, Hooks
from east.training.loop import run_loop
from east.training.provenance import Origin
from east.training.records import EpochRecord, UpdateRecord
from east.training.run import RunFiles
from east.training.state import StateFile
from east.training.trace import Tracing

EPOCH_STEPS = {"cpu": 6, "cuda": 32}
"""Device -> least steps of an epoch that is timed."""

NEVER = 1_000_000_000
"""More steps, or epochs, than will be made."""

FLOPS_PER_SECOND = 1e11
"""Of a core; decides how many images a dense step is timed on."""

LEAST_BATCH = 32
"""Images of a timed step at least, if the run has as many."""

MOST_IMAGE_BYTES = 2**26
"""Of the images that a GPU is timed on for an evaluation."""


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


@dataclass(frozen=True, order=True)
class Situation:
    """What decides how long a step of a kind of run takes.

    Args:
        dynamic: whether DyReLU is active; False for networks without it.
        density: of the network.
    """

    dynamic: bool
    density: float


@dataclass(frozen=True)
class PartSeconds:
    """Seconds of the parts of a training at one density.

    Args:
        step: an optimizer step, its batch included.
        dense_gradients: extra time of a step that finds the gradients of off weights too.
        update: a change of the masks, and the extra time of the step after it.
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
        batch: images of the timed steps; fewer than the run's where those would take long.
        parts: what was found in each situation.
    """

    build: float
    save: float
    checkpoint_bytes: int
    batch: int
    parts: Mapping[Situation, PartSeconds]


def time_kinds(
    kinds: Mapping[RunSpec, Sequence[Situation]],
    conditions: Conditions,
    folder: Path,
    report: Callable[[], None] = lambda: None,
) -> dict[RunSpec, list[KindTimes]]:
    """Time kinds of runs in fresh processes, as many at once as runs will share this machine.

    Processes that have nothing left to time begin with the first kinds again, so that the load stays the same until the
    last kind is timed.

    Args:
        kinds: a run of each kind -> the situations in which it is timed.
        conditions: device, engine, threads and processes.
        folder: for checkpoints, on the disk where those of runs will be; they are removed.
        report: called whenever a kind is timed.

    Returns:
        For each kind what was found in each process that timed it, one at least.

    Raises:
        EastError: the device or engine is not there, or memory does not suffice.
    """
    tasks = list(itertools.islice(itertools.cycle(kinds), len(kinds) + conditions.side_by_side - 1))
    found: dict[RunSpec, list[KindTimes]] = {kind: [] for kind in kinds}
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".estimate.") as scratch,
        workers(conditions.side_by_side, context) as processes,
    ):
        futures = [processes.submit(time_kind, kind, kinds[kind], conditions, Path(scratch)) for kind in tasks]
        try:
            for kind, future in zip(tasks, futures, strict=True):
                found[kind].append(future.result())
                report()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise EastError(
                f"{conditions.side_by_side} runs at once did not fit into memory. Let fewer run at once: give fewer "
                "--cores, more --threads or fewer --runs-per-gpu."
            ) from error
        finally:
            processes.shutdown(cancel_futures=True)
    return found


def time_kind(spec: RunSpec, situations: Sequence[Situation], conditions: Conditions, folder: Path) -> KindTimes:
    """Time the parts of one kind of run in this process.

    Args:
        spec: a run of the kind; its density and schedule do not matter.
        situations: when it is timed, in order; where the dense engine takes equally long, only in the middle one.
        conditions: device, engine, threads and time to spend.
        folder: for checkpoints.

    Raises:
        EastError: the device or engine is not there.
    """
    torch.set_num_threads(conditions.threads)
    keep_freed_memory()
    device = choose_device(conditions.device)
    kind = choose_step(conditions.step, device)
    engine = _engine(at_density(spec, situations[0].density), conditions.engine, device, kind)
    full, batch = spec.training.batch_size, timed_batch(spec, engine, device, conditions)
    training = spec.training.model_copy(update={"batch_size": batch, "epochs": NEVER})
    small = spec.model_copy(update={"training": training})
    # Some that settle, some that are plain, one before a mask update, and one after it.
    steps = max(EPOCH_STEPS[device.type], settling_steps(kind, spec) + 2 * settling_steps("eager", spec) + 1)
    affordable = MOST_IMAGE_BYTES // math.prod(info_of(spec.dataset).image_shape) if device.type == "cuda" else 0
    evaluated = max(EVALUATION_BATCH, affordable) * batch // full
    data = random_images(small, device, training=steps * batch, evaluation=evaluated)
    sizes = spec.dataset.validation, info_of(spec.dataset).test_images
    evaluations = sum(sizes) / sum(min(size, evaluated) for size in sizes)

    timed = list(situations)
    if engine == "dense":
        # It executes every position at any density: the middle one of a phase stands for all.
        phases = [list(phase) for _, phase in itertools.groupby(timed, key=lambda situation: situation.dynamic)]
        timed = [phase[len(phase) // 2] for phase in phases]
    settling, window = settling_steps(kind, spec), conditions.seconds / len(timed)
    parts: dict[Situation, PartSeconds] = {}
    clocked: list[tuple[float, Mapping[str, float], int]] = []
    for situation in timed:
        # What an update takes is looking at all positions, whatever the density: it is clocked once, and again without
        # DyReLU.
        before = next((parts[other] for other in parts if other.dynamic == situation.dynamic), None)
        run = in_phase(small, dynamic=situation.dynamic)
        changed = {"density": situation.density, "update_period": steps - 1 if before is None else NEVER}
        run = run.model_copy(update={"sparsity": run.sparsity.model_copy(update=changed)})
        begin = partial(Training.begin, run, data, device=device, engine=engine, kind=kind)
        clocked.append(clock(begin, conditions, folder, settling, window))
        seconds = clocked[-1][1]
        parts[situation] = PartSeconds(
            step=seconds["step"] * full / batch,
            dense_gradients=before.dense_gradients if before else seconds["dense gradients"] * full / batch,
            update=before.update if before else seconds["update"],
            evaluation=seconds["evaluation"] * evaluations,
        )
    builds, means, sizes_on_disk = zip(*clocked, strict=True)
    return KindTimes(
        build=settled_mean(builds),
        save=fmean(seconds["save"] for seconds in means),
        checkpoint_bytes=max(sizes_on_disk),
        batch=batch,
        parts=parts,
    )


def clock(
    begin: Callable[[], Training], conditions: Conditions, folder: Path, settling: int, seconds: float
) -> tuple[float, Mapping[str, float], int]:
    """Train, with all records that a run writes, for about some seconds.

    Args:
        begin: makes the training.
        conditions: threads and processes, for the records.
        folder: where they are written for a while.
        settling: steps at the start that do not count.
        seconds: the training ends with the epoch in which they have passed.

    Returns:
        Seconds until the first step could begin, the means of a `Stopwatch`, and bytes of the largest checkpoint.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        home = Path(scratch)
        started = time.perf_counter()
        training = begin()
        device = training.sums.loss.device
        synchronize(device)
        build = time.perf_counter() - started

        threads, runs = conditions.threads, conditions.side_by_side
        attempts, tracing = AttemptLog(Origin.of_this_process(), device, threads, runs), Tracing()
        state = StateFile(home, epochs=NEVER, device=str(device), threads=threads, runs_per_device=runs)
        files = RunFiles(Checkpoints(home, training.spec.fingerprint), attempts, tracing, state)
        stopwatch = Stopwatch(training, [attempts, tracing, files], settling, seconds)
        with suppress(SystemExit):
            run_loop(training, [stopwatch])
        return build, stopwatch.means(), max(path.stat().st_size for path in home.glob(CHECKPOINTS))


class Stopwatch(Hook):
    """Clocks the parts of a training, and stops it at the end of the epoch in which its time is over.

    It stands for the step, too, to note when one was done: the loop changes masks before any hook sees that.

    Args:
        training: at its start; its step is clocked.
        records: hooks, which are clocked as well.
        settling: steps at the start that do not count.
        seconds: its time.
    """

    def __init__(self, training: Training, records: Sequence[Hook], settling: int, seconds: float) -> None:
        self._device, self._step = training.sums.loss.device, training.parts.step
        self._stepped = now(self._device)
        training.parts = replace(training.parts, step=self)
        self._records, self._settling = Hooks(records), settling
        self._end = time.perf_counter() + seconds
        self._laps: dict[str, list[tuple[Moment, Moment]]] = defaultdict(list)
        self._since, self._follows_update = now(self._device), False

    def __call__(
        self, images: Tensor, labels: Tensor, lr: float, number: int, *, dense_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        """Train on one batch, see `Step`."""
        result = self._step(images, labels, lr, number, dense_gradients=dense_gradients)
        self._stepped = now(self._device)
        return result

    def masks_changed(self) -> None:
        """See `Step`."""
        self._step.masks_changed()

    def phase_changed(self) -> None:
        """See `Step`."""
        self._step.phase_changed()

    def means(self) -> dict[str, float]:
        """Mean seconds of each part: those of `PartSeconds`, and to `save` an epoch. Without updates, theirs are 0."""
        found = {part: settled_mean([seconds_between(*lap) for lap in laps]) for part, laps in self._laps.items()}
        step = found["step"]
        return {
            "step": step,
            "dense gradients": max(0.0, found.get("step before", step) - step),
            "update": found.get("update", 0.0) + max(0.0, found.get("step after", step) - step),
            "evaluation": found["evaluation"],
            "save": found["save"] + found["trace"],
        }

    def on_begin(self, training: Training) -> None:
        """The records begin."""
        self._records.on_begin(training)

    def before_epoch(self, training: Training) -> None:
        """The first batch of an epoch is about to be drawn."""
        self._records.before_epoch(training)
        self._since = now(self._device)

    def before_batch(self, training: Training) -> None:
        """Stop between two epochs."""
        if training.epoch and not training.sums.steps and time.perf_counter() > self._end:
            raise SystemExit

    def after_step(self, training: Training, update: UpdateRecord | None) -> None:
        """Clock a step, and what followed it."""
        self._records.after_step(training, update)
        stepped, recorded = (self._since, self._stepped), (self._stepped, now(self._device))
        position = training.sums.steps
        if update is not None:
            self._laps["step before"].append(stepped)
            self._laps["update"].append(recorded)
        elif self._follows_update:
            self._laps["step after"].append(stepped)
        elif training.steps_done > self._settling and position > 1:  # the first of an epoch draws the order of images
            self._laps["step"].append(stepped)
        if position == training.schedule.steps_per_epoch:
            self._laps["trace"].append(recorded)
        self._since, self._follows_update = recorded[1], update is not None

    def after_epoch(self, training: Training, record: EpochRecord) -> None:
        """Clock the evaluation and the records of an epoch."""
        evaluated = now(self._device)
        self._records.after_epoch(training, record)
        self._laps["evaluation"].append((self._since, evaluated))
        self._laps["save"].append((evaluated, now(self._device)))


def settled_mean(seconds: Sequence[float]) -> float:
    """The mean without the first, which takes memory for the first time; what is timed only once counts as it is."""
    return fmean(seconds[1:] or seconds)


def at_density(spec: RunSpec, density: float) -> RunSpec:
    """The run with another target density."""
    return spec.model_copy(update={"sparsity": spec.sparsity.model_copy(update={"density": density})})


def _engine(spec: RunSpec, name: str, device: torch.device, kind: StepKind) -> str:
    """The name of the engine of a run, with what is compiled or measured once and not in every run."""
    if name == "auto" or (name == "sparse" and device.type == "cpu"):
        prepare_costs(device, spec.training.numerics, kind == "compiled")
    return engine_of_run(spec) if name == "auto" and device.type == "cpu" else name


def timed_batch(spec: RunSpec, engine: str, device: torch.device, conditions: Conditions) -> int:
    """Images of a timed step: those of the run, or fewer where a processor executes a large network densely.

    The time of such a step goes with its images.
    """
    full = spec.training.batch_size
    if engine != "dense" or device.type == "cuda":
        return full
    flops = training_flops(layer_work(network_shape(spec), info_of(spec.dataset).image_shape))
    affordable = conditions.seconds * conditions.threads * FLOPS_PER_SECOND / flops
    return min(full, max(LEAST_BATCH, int(affordable)))
