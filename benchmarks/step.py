"""The benchmark of the training step: `python -m benchmarks.step`, or `make bench`."""

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from benchmarks.floor import BFLOAT16_BYTES, FLOAT_BYTES, bytes_per_step, copy_bandwidth
from benchmarks.machine import cores
from benchmarks.results import RESULTS_FOLDER, in_turn, run_command, save, slug, today
from benchmarks.step_results import BYTES_MOVED, SPARSE, Results, render
from benchmarks.variants import (
    CPU,
    MAKE_DENSE,
    DenseStep,
    NumberedStep,
    SparseSteps,
    TimedNetwork,
    VariantName,
    make_variant,
    other_networks,
    timed_networks,
)
from east.checkout import commit
from east.cost.measure import measure_steps, seconds_of
from east.data.catalog import info_of
from east.engine.cpu.library import load_kernels
from east.errors import EastError
from east.models.dyrelu import dyrelu_units
from east.sparse.layers import masked_layers
from east.training.device import keep_freed_memory
from east.training.provenance import device_name

DENSITIES = (0.0005, 0.0001, 0.001, 0.005, 0.01, 0.015, 0.05)
"""The paper's density first: it is that of the masked dense variants."""

SHORT_DENSITIES = (0.02, 0.1)
BATCH_SIZE, SHORT_BATCH_SIZE = 128, 4
ROUNDS = 3
MINUTES_A_ROUND = 0.9
"""Of one network and number of threads, on two cores of a shared cloud machine; warm-up and memory included."""

SPARSE_SECONDS = 0.6
SPARSE_STEPS = 5
"""A sparse step is repeated in a round for this long, but no more than so many times; the median counts."""

TimedSeries = tuple[VariantName, bool, float | None]
"""Variant, whether it clips, and density."""


def run(
    networks: dict[str, TimedNetwork],
    *,
    densities: Sequence[float],
    threads: Sequence[int],
    rounds: int,
    batch_size: int,
    short: bool,
) -> Results:
    """Time every network with every number of threads, then measure peak memory; each in a process of its own.

    Memory is measured with the largest number of threads.

    Raises:
        EastError: the kernels cannot be compiled, or memory does not suffice.
    """
    started, load, kernels = time.perf_counter(), os.getloadavg()[0], load_kernels()
    machine = {
        "processor": device_name(CPU),
        "cores": cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": kernels.compiler,
        "vector": kernels.vector,
        "commit": commit(),
        "load": load,
    }
    cells: list[Results] = []
    peaks: list[Results] = []
    for name, network in networks.items():
        used = densities if network.only_density is None else (network.only_density,)
        counts = _counts_of(network, threads)
        cells += [_time_apart(name, network, used, count, rounds, batch_size) for count in counts]
        peaks += _peaks(name, network, used, max(threads), batch_size)
    first = next(iter(networks.values()))
    return {
        "machine": machine,
        "date": today(),
        "minutes": (time.perf_counter() - started) / 60,
        "short": short,
        "image_shape": info_of(first.spec.dataset).image_shape,
        "batch_size": batch_size,
        "cells": cells,
        "peaks": peaks,
    }


def save_step(results: Results, folder: Path) -> Path:
    """Write the results as JSON and as Markdown, named for processor and date; returns the Markdown file."""
    return save(
        json.dumps(results, indent=1, ensure_ascii=False),
        render(results),
        folder,
        f"{slug(results['machine']['processor'])}-{results['date']}",
    )


def time_network(
    name: str, network: TimedNetwork, *, densities: Sequence[float], threads: int, rounds: int, batch_size: int
) -> Results:
    """Time all variants of a network in turn; for a fresh process, whose number of threads it sets.

    A round is one step of each dense variant and then some steps of the sparse engine at each density. Every dense
    variant runs one step before the first round, and the sparse engine one after each change of the density; these are
    not counted.

    Masked dense variants have the masks of the first density.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    where = f"{network.label}, {threads} thread{'s' if threads > 1 else ''}"
    bandwidth = copy_bandwidth()
    dense = {variant: MAKE_DENSE[variant](network, densities[0], batch_size) for variant in network.compared}
    sparse = {
        name: SparseSteps(of, densities, batch_size)
        for name, of in zip(SPARSE, (network, network.in_bfloat16), strict=True)
    }
    for step in dense.values():
        step(1)
    floors: dict[float, Results] = {}

    def time_dense(variant: VariantName, step: DenseStep, number: int) -> dict[TimedSeries, float]:
        plain = _seconds(step.step, number + 1)
        found: dict[TimedSeries, float] = {(variant, False, None): plain}
        if step.clip is not None:
            found[variant, True, None] = plain + _seconds(step.clip, number + 1)
        return found

    def time_sparse(density: float, variant: VariantName, number: int) -> dict[TimedSeries, float]:
        steps = sparse[variant]
        steps.use(density)
        steps.clipped(1)
        if density not in floors:
            floors[density] = _floor(network, steps.model, density, batch_size)
        times: dict[TimedSeries, float] = {}
        for clip, step in ((False, steps.plain), (True, steps.clipped)):
            seconds: list[float] = []
            while sum(seconds) < SPARSE_SECONDS and len(seconds) < SPARSE_STEPS:
                seconds.append(_seconds(step, len(seconds) + 2))
            times[variant, clip, density] = statistics.median(seconds)
        return times

    found = in_turn(
        [partial(time_dense, variant, step) for variant, step in dense.items()]
        + [partial(time_sparse, density, variant) for density in densities for variant in SPARSE],
        rounds,
        lambda number: print(f"{where}: round {number} of {rounds}", flush=True),
    )
    return {
        "network": name,
        "label": network.label,
        "threads": threads,
        "copy_bandwidth": bandwidth,
        "timings": [
            {"variant": variant, "clip": clip, "density": density, "seconds": seconds}
            for (variant, clip, density), seconds in found.items()
        ],
        "floors": list(floors.values()),
    }


def _floor(network: TimedNetwork, model: nn.Module, density: float, batch_size: int) -> Results:
    """Bytes that a step moves at least, with activations in float32 and in bfloat16; None where nobody counts them."""
    image_shape = info_of(network.spec.dataset).image_shape
    count = partial(bytes_per_step, model, image_shape, batch_size)
    try:
        count(FLOAT_BYTES)
        is_counted = not dyrelu_units(model)
    except EastError:
        is_counted = False
    return {
        "density": density,
        "nonzeros": sum(int(layer.mask.sum()) for layer in masked_layers(model).values()),
        BYTES_MOVED["sparse"]: count(FLOAT_BYTES) if is_counted else None,
        BYTES_MOVED["sparse-bf16"]: count(BFLOAT16_BYTES) if is_counted else None,
    }


def _seconds(step: NumberedStep, number: int) -> float:
    return seconds_of(lambda: step(number), CPU)


def _counts_of(network: TimedNetwork, threads: Sequence[int]) -> Sequence[int]:
    return [max(threads)] if network.all_threads_only else threads


def _time_apart(
    name: str, network: TimedNetwork, densities: Sequence[float], threads: int, rounds: int, batch_size: int
) -> Results:
    job = partial(
        time_network, name, network, densities=densities, threads=threads, rounds=rounds, batch_size=batch_size
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.step"])
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        try:
            return process.submit(job).result()
        except BrokenProcessPool as error:
            raise EastError(
                f"timing {network.label} did not fit into memory: all variants are held at once. Name fewer "
                "--densities, or run on a machine with more memory."
            ) from error


def _peaks(
    name: str, network: TimedNetwork, densities: Sequence[float], threads: int, batch_size: int
) -> list[Results]:
    asked: list[tuple[VariantName, float | None]] = [(variant, None) for variant in network.compared]
    asked += [(variant, density) for density in densities for variant in SPARSE]
    found = []
    for variant, density in asked:
        make = partial(make_variant, network, variant, density or densities[0], batch_size)
        # Two steps that are not timed: in the second one momentum and gradients are all there.
        _, megabytes = measure_steps(make, steps=0, device=CPU, threads=threads)
        found.append({"network": name, "variant": variant, "density": density, "megabytes": megabytes})
    print(f"{network.label}: peak memory of {len(found)} steps measured", flush=True)
    return found


def main(
    short: Annotated[bool, typer.Option("--short", help="Narrow networks, small images, one round.")] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Networks to time, of those that `east list networks` names; the paper's when left out."),
    ] = None,
    densities: Annotated[
        list[float] | None,
        typer.Option(min=1e-6, max=1, help="Of the sparse engine; the first is also that of masked dense variants."),
    ] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Numbers of CPU threads, or all.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How often everything is timed.")] = None,
    out: Annotated[
        Path, typer.Option(help="The folder of the results; benchmarks/results when left out.", show_default=False)
    ] = RESULTS_FOLDER,
) -> None:
    """Time the whole training step of our engines, of PyTorch and of a peer's way, in turn. Options may be repeated."""
    papers = timed_networks(short=short)
    networks = papers | (other_networks(short=short) if models else {})
    if unknown := set(models or ()) - networks.keys():
        raise EastError(f"there is no network '{unknown.pop()}' here. Choose from {', '.join(networks)}.")
    chosen = {name: network for name, network in networks.items() if not models or name in models}
    rounds = rounds or (1 if short else ROUNDS)
    wanted = threads or ["1", "all"]
    if wrong := [count for count in wanted if count != "all" and not (count.isdecimal() and int(count) > 0)]:
        raise EastError(f"--threads {wrong[0]} is not a number of threads. Give a whole number from 1, or all.")
    # `all` is PyTorch's choice for this machine, a thread a core.
    counts = list(dict.fromkeys(torch.get_num_threads() if count == "all" else int(count) for count in wanted))
    minutes = MINUTES_A_ROUND * rounds * sum(len(_counts_of(network, counts)) for network in chosen.values())
    length = "some seconds" if short else f"about {minutes:.0f} minutes on two cores, less on more"
    print(f"{', '.join(chosen)}: rounds: {rounds}, {length}", flush=True)
    results = run(
        chosen,
        densities=densities or (SHORT_DENSITIES if short else DENSITIES),
        threads=counts,
        rounds=rounds,
        batch_size=SHORT_BATCH_SIZE if short else BATCH_SIZE,
        short=short,
    )
    path = save_step(results, out)
    print(f"{render(results)}\nWritten to {path} and the .json beside it, {results['minutes']:.1f} minutes.")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
