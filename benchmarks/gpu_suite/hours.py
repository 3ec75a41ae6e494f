"""Hours of the runs of Tables 2-5 that follow from seconds of an epoch and steps of several processes."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.gpu_suite.conditions import RIGL
from benchmarks.gpu_suite.findings import EpochTimes, Hours, Results, StepTimes, Throughput, WayName
from east.config.run import RunSpec
from east.cost.parts import KindTimes, PartSeconds
from east.errors import EastError
from east.operations.kind_seconds import KindSeconds
from east.operations.kinds import Work, remaining_work

SECONDS_PER_HOUR = 3600


def extrapolate(results: Results, runs: Sequence[RunSpec], names: Mapping[str, str]) -> list[Hours]:
    """Hours of all runs for each way whose epochs were timed on every network that they need.

    A run takes, as in `east estimate`: its steps, each as long as the mean one of a timed epoch and, for the sparse
    engine, in proportion to the step at the density of the moment; its mask updates; and after every epoch an
    evaluation and a checkpoint.

    Args:
        results: what the suite found.
        runs: the runs.
        names: name of a network in the config -> how the suite calls it.
    """
    epochs = {(found.network, found.way): found for found in results.all(EpochTimes) if found.training}
    if not runs:
        return []
    found = []
    for name in dict.fromkeys(way for _, way in epochs):
        needed = {names[run.model.name] for run in runs}
        if any((network, name) not in epochs for network in needed):
            continue
        kinds = {network: _kind(epochs[network, name], results.all(StepTimes)) for network in needed}
        hours = math.fsum(kinds[names[run.model.name]].of(_without_dyrelu(run)) for run in runs) / SECONDS_PER_HOUR
        found.append(_at_best(name, len(runs), hours, results.all(Throughput)))
    return found


def _without_dyrelu(run: RunSpec) -> Work:
    """What a run does.

    Raises:
        EastError: DyReLU is part of it, and no epochs with DyReLU are timed.
    """
    if run.phasing is not None:
        raise EastError("the hours of runs with DyReLU are not told: their epochs are not timed.")
    return remaining_work(run)


def _at_best(name: WayName, runs: int, hours: float, throughputs: Sequence[Throughput]) -> Hours:
    own = [found for found in throughputs if found.way == name]
    alone = next((found for found in own if found.processes == 1 and not found.mps), None)
    best = max(own, key=lambda found: found.total, default=None)
    if alone is None or best is None or best.total <= alone.total:
        note = "one process is best" if alone else "several processes were not timed"
        return Hours(way=name, runs=runs, hours=hours, processes=1, mps=False, hours_at_best=hours, note=note)
    return Hours(
        way=name,
        runs=runs,
        hours=hours,
        processes=best.processes,
        mps=best.mps,
        hours_at_best=hours * alone.total / best.total,
        note=f"all steps of a second grow {best.total / alone.total:.2f} times, on {best.network}",
    )


def _kind(epoch: EpochTimes, steps: Sequence[StepTimes]) -> KindSeconds:
    """Seconds of the parts of a run on one network, at all densities whose steps were timed."""
    step = median(epoch.training) / epoch.steps
    densities = {
        found.density: found.median
        for found in steps
        if (found.network, found.way, found.method) == (epoch.network, epoch.way, RIGL) and found.batch == epoch.batch
    }
    at_target = densities[min(densities)] if densities else 1.0
    relative = {density: seconds / at_target for density, seconds in densities.items()} or {1.0: 1.0}
    # A timed update has two steps in it, one of them with dense gradients.
    update = max(0.0, median(epoch.update) - 2 * step) if epoch.update else 0.0
    evaluation = median(epoch.evaluation) if epoch.evaluation else 0.0
    parts = {
        (False, density): PartSeconds(step=step * factor, dense_gradients=0.0, update=update, evaluation=evaluation)
        for density, factor in relative.items()
    }
    save = median(epoch.saving) if epoch.saving else 0.0
    return KindSeconds([KindTimes(build=0.0, save=save, checkpoint_bytes=0, batch=epoch.batch, parts=parts)])
