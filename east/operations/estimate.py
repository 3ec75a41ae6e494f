"""What the rest of a plan will cost in hours, wall time and disk, from parts of its runs that are timed here."""

import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import torch

from east.config import Plan, Run, RunSpec
from east.cost.timing import Conditions, at_density, time_kinds
from east.operations.disk import disk_need
from east.operations.kinds import KindSeconds, kind_of, remaining_phases, situations
from east.operations.on_disk import read_run
from east.operations.start import EPOCHS, time_start
from east.sparse.timetable import Phase
from east.training.checkpoint import KEPT
from east.training.device import choose_device


@dataclass(frozen=True)
class Parallelism:
    """How many runs go on at once, what their time is counted in, and how many units each has.

    `sharing` is the number of runs that share a processor, or a GPU, and slow each other down.
    """

    runs: int
    unit: Literal["core", "GPU"]
    units_per_run: float
    sharing: int


def find_parallelism(
    device: str, *, cores: int, threads: int, gpus: int | None, runs_per_gpu: int, jobs: int | None
) -> Parallelism:
    """As many runs at once as this machine takes, by its cores or its GPUs, or as many as `jobs` says.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cores: that runs may use.
        threads: of a run; it gets no more cores than there are.
        gpus: that runs may use; None for all there are.
        runs_per_gpu: that share a GPU.
        jobs: runs at once on several machines like this one; None for this one alone.

    Raises:
        EastError: CUDA is asked for and there is no GPU.
    """
    if choose_device(device).type == "cuda":
        runs = jobs or runs_per_gpu * (gpus or torch.cuda.device_count())
        return Parallelism(runs, "GPU", 1 / runs_per_gpu, min(runs, runs_per_gpu))
    fitting = max(1, cores // threads)
    runs = jobs or fitting
    return Parallelism(runs, "core", min(threads, cores), min(runs, fitting))


def wall_seconds(seconds: Iterable[float], at_once: int) -> float:
    """Seconds until jobs are done that begin in this order, each as soon as one of the places is free."""
    places = [0.0] * at_once
    for job in seconds:
        heapq.heapreplace(places, places[0] + job)
    return max(places)


@dataclass(frozen=True)
class Cost:
    """What some runs cost: how many there are and are left to do, and what those that are left take.

    Seconds are added up over processes; wall seconds pass until all are done, if nothing else is done meanwhile.
    """

    runs: int
    left: int
    seconds: float
    wall_seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Estimate:
    """The cost of what is left of a plan.

    Args:
        tables: table -> its runs; a run that several tables show counts for the first.
        total: all runs.
        run_seconds: id of a run that is left -> seconds of its process.
        start_seconds: those of them before the first step and after the last, on average.
        checkpoint_bytes: that runs hold while they go on, at most.
        data_bytes: of data sets that are not prepared yet.
        kinds: a run of each kind -> how many are left of it, and what was timed.
        warnings: of the processes that were timed.
    """

    tables: Mapping[str, Cost]
    total: Cost
    run_seconds: Mapping[str, float] = field(default_factory=dict)
    start_seconds: float = 0.0
    checkpoint_bytes: int = 0
    data_bytes: int = 0
    kinds: Mapping[RunSpec, tuple[int, KindSeconds]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class RunLeft(NamedTuple):
    """A run that is not done, its kind (see `kind_of`), and what is left of it."""

    run: Run
    kind: RunSpec
    phases: tuple[Phase, ...]


def estimate(
    plan: Plan,
    results: Path,
    conditions: Conditions,
    parallelism: Parallelism,
    report: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Time a few steps of each kind of run that is left, and multiply by the plan.

    Args:
        plan: all runs.
        results: results/<name>, with what is done already; need not exist.
        conditions: how runs will execute.
        parallelism: how many of them at once.
        report: called with a line about what is timed next.

    Raises:
        EastError: the device or engine is not there, or memory does not suffice.
    """
    left = runs_left(plan, results)
    if not left:
        return Estimate(*costs(plan.runs, {}, {}, parallelism.runs))
    runs = Counter(item.kind for item in left)
    # Phases of whole trainings, so that what is timed does not go with how far they are.
    phases: dict[RunSpec, list[Phase]] = defaultdict(list)
    for item in left:
        phases[item.kind] += remaining_phases(item.run.spec)
    done = itertools.count(1)
    report(f"timing {len(phases)} kinds of run")
    times = time_kinds(
        {kind: situations(found) for kind, found in phases.items()},
        conditions,
        # Checkpoints are written where those of runs will be.
        next(path for path in (results, *results.absolute().parents) if path.is_dir()),
        lambda: report(f"timing {len(phases)} kinds of run, {min(next(done), len(phases))} done"),
    )
    timed = {kind: KindSeconds(found) for kind, found in times.items()}
    report("timing the start of a run")
    [(commonest, _)] = runs.most_common(1)
    lowest = min(situation.density for situation in timed[commonest].timed)
    seconds, warnings = time_start(at_density(commonest, lowest), conditions)
    # What the start of the commonest kind takes, without what depends on the kind.
    process = seconds - EPOCHS * timed[commonest].save - timed[commonest].build
    starts = {kind: max(0.0, process + of_kind.build) for kind, of_kind in timed.items()}
    run_seconds = {item.run.id: starts[item.kind] + timed[item.kind].of(item.phases) for item in left}
    need = disk_need([item.run for item in left], Path(plan.config.execution.data_dir))
    tables, total = costs(plan.runs, run_seconds, need.runs, parallelism.runs)
    return Estimate(
        tables,
        total,
        run_seconds,
        start_seconds=fmean(starts[item.kind] for item in left),
        checkpoint_bytes=min(parallelism.runs, len(left))
        * KEPT
        * max(each.checkpoint_bytes for each in timed.values()),
        data_bytes=need.data,
        kinds={kind: (runs[kind], of_kind) for kind, of_kind in timed.items()},
        warnings=warnings,
    )


def runs_left(plan: Plan, results: Path) -> list[RunLeft]:
    """The runs that are not done, and what is left of each; one with a checkpoint goes on from there."""
    left = []
    for run in plan.runs:
        found = read_run(results / "runs" / run.id)
        if run.fingerprint not in [ended.fingerprint for ended in (found.summary, found.kept) if ended]:
            begun = found.spec == run.spec.model_dump(mode="json")
            phases = remaining_phases(run.spec, (found.epoch or 0) if begun else 0)
            left.append(RunLeft(run, kind_of(run.spec), phases))
    return left


def costs(
    runs: Iterable[Run], seconds: Mapping[str, float], disk: Mapping[str, int], at_once: int
) -> tuple[dict[str, Cost], Cost]:
    """The cost of each table and of all runs, from seconds and bytes of those that are left, by their ids."""

    def cost(some: Sequence[Run]) -> Cost:
        left = [run.id for run in some if run.id in seconds]
        each = [seconds[run] for run in left]
        return Cost(len(some), len(left), math.fsum(each), wall_seconds(each, at_once), sum(disk[run] for run in left))

    tables = {table: list(some) for table, some in itertools.groupby(runs, lambda run: run.table)}
    return {table: cost(some) for table, some in tables.items()}, cost(list(itertools.chain(*tables.values())))
