"""What the rest of a plan will cost in hours, wall time and disk, from parts of its runs that are timed here."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from east.config import Plan, Run, RunSpec
from east.cost.parts import Conditions, PartSeconds, at_density, time_kinds
from east.operations.disk import data_bytes, run_bytes
from east.operations.kind_seconds import KindSeconds, timed_densities
from east.operations.kinds import Moment, Work, densities, describe_kind, kind_of, remaining_work
from east.operations.on_disk import read_run
from east.operations.parallelism import Parallelism, wall_seconds
from east.operations.start import time_start
from east.training.checkpoint import KEPT


@dataclass(frozen=True)
class Cost:
    """What some runs cost.

    Args:
        runs: all of them.
        left: those that are not done.
        seconds: of the processes that are left, added up.
        wall_seconds: until all are done, if nothing else is done meanwhile.
        disk_bytes: that the runs which are left will leave.
    """

    runs: int
    left: int
    seconds: float
    wall_seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class TimedKind:
    """A kind of run, with what was timed of it.

    Args:
        name: for people.
        runs: that are left of it.
        batch: images of a step.
        timed_batch: images of the steps that were timed; if fewer, the time of a step was extrapolated from theirs.
        build: seconds to make network, masks, engine and optimizer.
        save: seconds to write a checkpoint.
        parts: when, and what was found.
    """

    name: str
    runs: int
    batch: int
    timed_batch: int
    build: float
    save: float
    parts: tuple[tuple[Moment, PartSeconds], ...]


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
        kinds: what was timed.
        warnings: of the processes that were timed.
    """

    tables: Mapping[str, Cost]
    total: Cost
    run_seconds: Mapping[str, float] = field(default_factory=dict)
    start_seconds: float = 0.0
    checkpoint_bytes: int = 0
    data_bytes: int = 0
    kinds: tuple[TimedKind, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunLeft:
    """A run that is not done.

    Args:
        run: the run.
        kind: see `kind_of`.
        work: what is left of it.
    """

    run: Run
    kind: RunSpec
    work: Work


def estimate(
    plan: Plan,
    results: Path,
    conditions: Conditions,
    parallelism: Parallelism,
    report: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Time a few steps of each kind of run that is left, and multiply by the plan.

    Args:
        plan: the plan.
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
    works: dict[RunSpec, list[Work]] = {}
    for item in left:
        works.setdefault(item.kind, []).append(remaining_work(item.run.spec))
    moments = {kind: _moments(work) for kind, work in works.items()}
    timed = _time_kinds(moments, conditions, results, report)
    report("timing the start of a run")
    commonest = max(works, key=lambda kind: len(works[kind]))
    start = time_start(at_density(commonest, min(itertools.chain(*moments[commonest].values()))), conditions)
    # What the start of the commonest kind takes, without what depends on the kind.
    process = start.seconds - start.epochs * timed[commonest].save - timed[commonest].build
    starts = {kind: max(0.0, process + of_kind.build) for kind, of_kind in timed.items()}
    run_seconds = {item.run.id: starts[item.kind] + timed[item.kind].of(item.work) for item in left}
    disk = {item.run.id: run_bytes(item.run.spec) for item in left}
    tables, total = costs(plan.runs, run_seconds, disk, parallelism.runs)
    return Estimate(
        tables,
        total,
        run_seconds,
        start_seconds=fmean(starts[item.kind] for item in left),
        checkpoint_bytes=min(parallelism.runs, len(left))
        * KEPT
        * max(each.checkpoint_bytes for each in timed.values()),
        data_bytes=data_bytes({item.run.spec.dataset.name for item in left}, Path(plan.config.execution.data_dir)),
        kinds=tuple(_timed_kind(kind, len(works[kind]), of_kind) for kind, of_kind in timed.items()),
        warnings=start.warnings,
    )


def runs_left(plan: Plan, results: Path) -> list[RunLeft]:
    """The runs that are not done, and what is left of each; one with a checkpoint goes on from there."""
    left = []
    for run in plan.runs:
        found = read_run(results / "runs" / run.id)
        if any(ended is not None and ended.fingerprint == run.fingerprint for ended in (found.summary, found.kept)):
            continue
        begun = found.epoch is not None and found.spec == run.spec.model_dump(mode="json")
        epochs_done = (found.epoch or 0) if begun else 0
        left.append(RunLeft(run, kind_of(run.spec), remaining_work(run.spec, epochs_done)))
    return left


def costs(
    runs: Iterable[Run], seconds: Mapping[str, float], disk: Mapping[str, int], at_once: int
) -> tuple[dict[str, Cost], Cost]:
    """The cost of each table and of all runs.

    Args:
        runs: of the plan.
        seconds: id of a run that is left -> its seconds.
        disk: id of a run that is left -> bytes that it will leave.
        at_once: runs at once.
    """

    def cost(some: Sequence[Run]) -> Cost:
        left = [run.id for run in some if run.id in seconds]
        each = [seconds[run] for run in left]
        return Cost(len(some), len(left), math.fsum(each), wall_seconds(each, at_once), sum(disk[run] for run in left))

    tables: dict[str, list[Run]] = {}
    for run in runs:
        tables.setdefault(run.table, []).append(run)
    return {table: cost(some) for table, some in tables.items()}, cost(list(itertools.chain(*tables.values())))


def _moments(works: Iterable[Work]) -> dict[bool, tuple[float, ...]]:
    """When a kind of run is timed."""
    return {dynamic: timed_densities(*bounds) for dynamic, bounds in densities(works).items()}


def _time_kinds(
    moments: Mapping[RunSpec, Mapping[bool, tuple[float, ...]]],
    conditions: Conditions,
    results: Path,
    report: Callable[[str], None],
) -> dict[RunSpec, KindSeconds]:
    # Checkpoints are written where those of runs will be.
    folder = next(path for path in (results, *results.absolute().parents) if path.is_dir())
    done = itertools.count(1)
    report(f"timing {len(moments)} kinds of run")
    found = time_kinds(
        list(moments.items()),
        conditions,
        folder,
        lambda: report(f"timing {len(moments)} kinds of run, {min(next(done), len(moments))} done"),
    )
    return {kind: KindSeconds(times) for kind, times in zip(moments, found, strict=True)}


def _timed_kind(kind: RunSpec, runs: int, timed: KindSeconds) -> TimedKind:
    parts = tuple(timed.timed.items())
    return TimedKind(describe_kind(kind), runs, kind.training.batch_size, timed.batch, timed.build, timed.save, parts)
