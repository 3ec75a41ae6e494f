"""Times the training steps of one network in turn, round by round, in one process."""

import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.floor import bytes_per_step, copy_bandwidth
from benchmarks.networks import TimedNetwork, VariantName
from benchmarks.results import Cell, Floor, Timing
from benchmarks.variants import MAKE_DENSE, DenseStep, SparseSteps, Step
from east.data.catalog import DATASETS
from east.models import ResNet
from east.models.dyrelu import dyrelu_units
from east.sparse.layers import masked_layers
from east.training.device import keep_freed_memory

SPARSE_SECONDS = 0.6
SPARSE_STEPS = 5
"""A sparse step is repeated in a round for this long, but no more than so many times; the median counts."""

Series = tuple[VariantName, bool, float | None]
"""Variant, whether it clips, and density."""


def time_network(
    name: str, network: TimedNetwork, *, densities: Sequence[float], threads: int, rounds: int, batch_size: int
) -> Cell:
    """Time all variants of a network; for a fresh process, whose number of threads it sets.

    A round is one step of each dense variant and then some steps of the sparse engine at each density, so that
    quotients are of steps that ran within a minute of each other. Every dense variant runs one step before the first
    round, and the sparse engine one after each change of the density; these are not counted.

    Args:
        name: of the network.
        network: the network.
        densities: of the sparse engine; masked dense variants have the masks of the first.
        threads: CPU threads.
        rounds: how often everything is timed.
        batch_size: images a step.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    where = f"{network.label}, {threads} thread{'s' if threads > 1 else ''}"
    bandwidth = copy_bandwidth()
    dense = {variant: MAKE_DENSE[variant](network, densities[0], batch_size) for variant in network.compared}
    sparse = SparseSteps(network, densities, batch_size)
    started = time.perf_counter()
    for step in dense.values():
        step(1)
    _say(f"{where}: {', '.join(dense)} ran once, {time.perf_counter() - started:.0f} s")
    seconds: dict[Series, list[float]] = {}
    floors: dict[float, Floor] = {}
    for number in range(1, rounds + 1):
        started = time.perf_counter()
        for variant, step in dense.items():
            _add(seconds, _time_dense(variant, step, number + 1))
        for density in densities:
            sparse.use(density)
            sparse.clipped(1)
            if density not in floors:
                floors[density] = _floor(sparse.model, network, density, batch_size)
            _add(seconds, {("sparse", False, density): _time_sparse(sparse.plain)})
            _add(seconds, {("sparse", True, density): _time_sparse(sparse.clipped)})
        _say(f"{where}: round {number} of {rounds}, {time.perf_counter() - started:.0f} s")
    return Cell(
        network=name,
        label=network.label,
        threads=threads,
        copy_bandwidth=bandwidth,
        timings=tuple(
            Timing(variant=variant, clip=clip, density=density, seconds=tuple(found))
            for (variant, clip, density), found in seconds.items()
        ),
        floors=tuple(floors.values()),
    )


def _time_dense(variant: VariantName, step: DenseStep, number: int) -> dict[Series, float]:
    plain = _time(step.step, number)
    found: dict[Series, float] = {(variant, False, None): plain}
    if step.clip is not None:
        found[variant, True, None] = plain + _time(step.clip, number)
    return found


def _time_sparse(step: Step) -> float:
    found: list[float] = []
    while sum(found) < SPARSE_SECONDS and len(found) < SPARSE_STEPS:
        found.append(_time(step, len(found) + 2))
    return statistics.median(found)


def _time(step: Step, number: int) -> float:
    started = time.perf_counter()
    step(number)
    return time.perf_counter() - started


def _add(seconds: dict[Series, list[float]], found: dict[Series, float]) -> None:
    for series, value in found.items():
        seconds.setdefault(series, []).append(value)


def _floor(model: ResNet, network: TimedNetwork, density: float, batch_size: int) -> Floor:
    image_shape = DATASETS[network.spec.dataset.name].image_shape
    return Floor(
        density=density,
        nonzeros=sum(int(layer.mask.sum()) for layer in masked_layers(model).values()),
        bytes_moved=None if dyrelu_units(model) else bytes_per_step(model, image_shape, batch_size),
    )


def _say(line: str) -> None:
    print(line, flush=True)
