"""Checks of cores and memory against what a training asks for."""

from collections.abc import Iterator

from east.launch.cores import training_threads
from east.operations.doctor.finding import Finding
from east.operations.doctor.limits import usable_cores, usable_memory
from east.operations.doctor.surroundings import Surroundings


def cores(here: Surroundings) -> Iterator[Finding]:
    """There are as many cores as a training asks for."""
    found = usable_cores(here.cores, here.root)
    wanted = _threads(here, found)
    if found >= wanted:
        yield Finding("ok", f"{found} cores; a training takes {wanted} (execution.threads)")
        return
    yield Finding(
        "warning",
        f"{found} core{'s' * (found > 1)}, but a training asks for {wanted} (execution.threads)",
        why="Snakemake gives it those that there are, so it takes longer than it might elsewhere.",
        mend=here.snakemake(f"--cores {found} --config execution='{{threads: {found}}}'"),
    )


def memory(here: Surroundings) -> Iterator[Finding]:
    """There is as much memory as a training declares, and as those do that run at once."""
    execution = here.plan.config.execution
    found = usable_memory(here.root)
    if found is None:
        return
    megabytes = found >> 20
    if megabytes < execution.memory_mb:
        yield Finding(
            "warning",
            f"{megabytes:,} MB of memory, but a training declares {execution.memory_mb:,} (execution.memory_mb)",
            why="The system ends a process that runs out of memory.",
            mend="Run the plan on a machine with more, or set execution.memory_mb to what trainings here take.",
        )
        return
    found_cores = usable_cores(here.cores, here.root)
    at_once = found_cores // _threads(here, found_cores)
    if execution.gpus == 0 and at_once * execution.memory_mb > megabytes:
        yield Finding(
            "note",
            f"{megabytes:,} MB of memory, less than {at_once} trainings at once declare",
            why="With `--cores all` the system may end some of them.",
            mend=here.snakemake(f"--cores all --resources mem_mb={megabytes}"),
        )
        return
    yield Finding("ok", f"{megabytes:,} MB of memory; a training declares {execution.memory_mb:,}")


def _threads(here: Surroundings, cores: int) -> int:
    """The threads of a training on these cores."""
    execution = here.plan.config.execution
    return training_threads(execution.threads, runs=len(here.plan.runs), cores=cores, engine=execution.engine)
