"""The time of each kernel and of a step that follows from bytes and operations at given rates."""

import math
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu_suite.conditions import NETWORKS, Conditions
from benchmarks.gpu_suite.floors import STORED, count_work, masked_model, passes
from benchmarks.gpu_suite.report import table
from benchmarks.gpu_suite.traffic import step_launches
from east.config.run import Numerics, RunSpec
from east.data.catalog import DATASETS
from east.engine.cpu.network import describe
from east.models import ResNet

GIVEN_RATES: Mapping[str, float] = {"copy": 3.0e12, "bf16": 790e12, "tf32": 400e12}
"""Bytes and operations a second of one H100, as they were given to the project; none was measured by this suite."""

BATCH = 128
NUMERICS: tuple[Numerics, ...] = ("tf32", "bf16")
MS, GB, TFLOP = 1e3, 1e9, 1e12

AIMS = "2.23 ms dense with TF32, 1.31 ms dense with bf16 and 0.84 ms sparse"
"""What the project's aims for ResNet-34 count from."""


def expected(rates: Mapping[str, float]) -> str:
    """Tables of kernels and steps as Markdown.

    Args:
        rates: `copy` in bytes a second, `bf16` and `tf32` in operations a second.
    """
    given = (
        f"{rates['copy'] / TFLOP:.1f} TB/s for a copy, {rates['bf16'] / TFLOP:.0f} TFLOP/s with bf16 and "
        f"{rates['tf32'] / TFLOP:.0f} TFLOP/s with TF32"
    )
    parts = [
        f"**Computed, not measured**: bytes and operations, counted, over given rates of an H100 ({given}). Nothing of "
        "it has run on a GPU. Caches are not credited, launches take no time, and no kernel reaches such rates "
        "throughout, so a step will take longer.",
    ]
    conditions = Conditions("cuda", False, 0.0, Path())
    specs = {label: conditions.plain(model) for label, model in NETWORKS.items()}
    models = {label: masked_model(spec) for label, spec in specs.items()}
    parts.append(_steps(specs, models, rates))
    parts += [_dense(label, specs[label], models[label], rates) for label in specs]
    parts += [_sparse(label, specs[label], models[label], rates) for label in specs]
    return "\n\n".join(parts)


def _steps(specs: Mapping[str, RunSpec], models: Mapping[str, ResNet], rates: Mapping[str, float]) -> str:
    rows = []
    for label, spec in specs.items():
        work = count_work(label, spec, BATCH)
        for numerics in NUMERICS:
            arithmetic = work.flops / rates[numerics]
            memory = work.dense_numbers * STORED[numerics].itemsize / rates["copy"]
            by_pass = math.fsum(seconds for *_, seconds in _dense_rows(spec, models[label], numerics, rates))
            rows.append([label, f"dense, {numerics}", _ms(arithmetic), _ms(memory), _ms(by_pass)])
        for numerics in NUMERICS:
            least = work.least_numbers * STORED[numerics].itemsize / rates["copy"]
            moved = work.sparse_bytes[numerics] / rates["copy"]
            rows.append([label, f"sparse, {numerics}, with the default clip", "–", _ms(least), _ms(moved)])
    header = ["network", "step", "arithmetic alone", "bytes alone", "kernel by kernel"]
    note = (
        "Kernel by kernel: for `dense` the sum over layers of what takes longer, arithmetic or bytes; for `sparse` the "
        "bytes that our kernels move, the estimate of the clip's norm included. Bytes alone of `sparse` are what any "
        f"step on these non-zeros must move. The aims for ResNet-34 count from {AIMS}."
    )
    return f"{table(header, rows)}\n\n{note}"


def _dense(label: str, spec: RunSpec, model: ResNet, rates: Mapping[str, float]) -> str:
    found = {numerics: _dense_rows(spec, model, numerics, rates) for numerics in NUMERICS}
    rows = []
    for name in dict.fromkeys(name for name, *_ in found["tf32"]):
        row = [name]
        for numerics in NUMERICS:
            own = [one for one in found[numerics] if one[0] == name]
            row += [f"{sum(one[1] for one in own) / GB:.2f} GB", _ms(math.fsum(one[3] for one in own))]
        operations = sum(one[2] for one in found["tf32"] if one[0] == name)
        rows.append([*row, f"{operations / TFLOP:.3f} TFLOP" if operations else "–"])
    header = ["kernels", "TF32: bytes", "at least", "bf16: bytes", "at least", "operations"]
    return f"**{label}, dense**, batch {BATCH}:\n\n{table(header, rows)}"


def _dense_rows(
    spec: RunSpec, model: ResNet, numerics: Numerics, rates: Mapping[str, float]
) -> list[tuple[str, float, float, float]]:
    """Of each pass of each unit: name, bytes, operations, seconds at least."""
    network = describe(model, DATASETS[spec.dataset.name].image_shape)
    rows: list[tuple[str, float, float, float]] = []
    for unit in network.units:
        for one in passes(unit, network):
            size = BATCH * one.numbers * STORED[numerics].itemsize
            operations = 2 * BATCH * one.products
            rows.append((one.name, size, operations, max(size / rates["copy"], operations / rates[numerics])))
    return rows


def _sparse(label: str, spec: RunSpec, model: ResNet, rates: Mapping[str, float]) -> str:
    image_shape = DATASETS[spec.dataset.name].image_shape
    found = {numerics: step_launches(model, image_shape, BATCH, STORED[numerics], probes=1) for numerics in NUMERICS}
    rows = []
    for phase, kernel in dict.fromkeys((one.phase, one.launch.kernel) for one in found["tf32"] + found["bf16"]):
        row = [f"{kernel}, {phase}"]
        for numerics in NUMERICS:
            own = [one.launch for one in found[numerics] if (one.phase, one.launch.kernel) == (phase, kernel)]
            size = sum(launch.total for launch in own)
            row += [str(len(own)), f"{size / GB:.3f} GB", _ms(size / rates["copy"])]
        rows.append(row)
    header = ["kernel", "TF32: launches", "bytes", "time", "bf16: launches", "bytes", "time"]
    density = spec.sparsity.density
    return f"**{label}, sparse**, density {density:g}, batch {BATCH}, default clip:\n\n{table(header, rows)}"


def _ms(seconds: float) -> str:
    return f"{seconds * MS:.3f} ms"
