"""How many runs go on at once, and how long a list of them takes then."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from east.training.device import choose_device


@dataclass(frozen=True)
class Parallelism:
    """How many runs go on at once.

    Args:
        runs: at once.
        unit: what their time is counted in.
        units_per_run: cores of a run, or the share of a GPU that it has.
        sharing: runs that share a processor, or a GPU, and slow each other down.
    """

    runs: int
    unit: Literal["core", "GPU"]
    units_per_run: float
    sharing: int


def find_parallelism(
    device: str, *, cores: int, threads: int, gpus: int | None, runs_per_gpu: int, jobs: int | None
) -> Parallelism:
    """As many runs at once as this machine takes, by its cores or its GPUs, or as many as a scheduler is told.

    Args:
        device: `auto`, `cpu` or `cuda`.
        cores: that runs may use.
        threads: CPU threads of a run; it gets no more cores than there are.
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
    """Seconds until jobs are done that begin in this order, each as soon as a place is free.

    Args:
        seconds: of each job.
        at_once: places.
    """
    places = [0.0] * at_once
    for job in seconds:
        heapq.heapreplace(places, places[0] + job)
    return max(places)
