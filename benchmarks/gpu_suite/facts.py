"""The device and its rates: a large copy, and matrix products of random numbers."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Literal

import torch
from torch import Tensor

from benchmarks.gpu_suite.conditions import Conditions
from benchmarks.gpu_suite.findings import Facts, Finding, Rate
from east.cost.clock import seconds_of_each
from east.engine.processor import processor_name
from east.training.provenance import commit, device_name

COPIED_BYTES, DRY_COPIED_BYTES = 2**31, 2**20
"""Read, and as many written: far more than the caches hold."""

SIDE, DRY_SIDE = 8192, 64
"""Of the square matrices."""

REPETITIONS, DRY_REPETITIONS = 20, 2
WARM_UPS = 3

Product = Literal["bf16", "tf32", "fp32"]
PRODUCTS: tuple[Product, ...] = ("bf16", "tf32", "fp32")


def measure(conditions: Conditions) -> Iterator[Finding]:
    """The facts of the device, then the rate of a copy and of matrix products."""
    yield device_facts(conditions.where)
    yield copy_rate(conditions)
    for numerics in PRODUCTS:
        yield product_rate(conditions, numerics)


def device_facts(device: torch.device) -> Facts:
    """Where and with what this runs."""
    found = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return Facts(
        device=device_name(device),
        capability=f"{found.major}.{found.minor}" if found else None,
        multiprocessors=found.multi_processor_count if found else None,
        memory_gb=found.total_memory / 1e9 if found else None,
        cache_mb=found.L2_cache_size / 2**20 if found else None,
        versions={
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "Triton": _version("triton"),
            "CUDA": torch.version.cuda,
            "cuDNN": str(torch.backends.cudnn.version()) if found else None,  # type: ignore[no-untyped-call]
        },
        platform=platform.platform(),
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)),
        commit=commit(),
        held_gb=_held(device),
        load=os.getloadavg()[0],
    )


def copy_rate(conditions: Conditions) -> Rate:
    """Bytes a second of a copy on the device, read and written."""
    size = DRY_COPIED_BYTES if conditions.dry else COPIED_BYTES
    source = torch.randint(2**31 - 1, (size // 4,), dtype=torch.int32, device=conditions.where)
    target = torch.empty_like(source)
    seconds = _timed(lambda: target.copy_(source), conditions)
    return Rate(
        what="copy",
        unit="B/s",
        size=f"{size / 2**20:,.0f} MiB of random bytes",
        values=tuple(2 * size / one for one in seconds),
    )


def product_rate(conditions: Conditions, numerics: Product) -> Rate:
    """Operations a second of a matrix product of random numbers, two for a multiplication and an addition."""
    side = DRY_SIDE if conditions.dry else SIDE
    first, second = (_random_matrix(side, numerics, conditions.where) for _ in range(2))
    out = torch.empty_like(first)
    with matrix_precision("tf32" if numerics == "tf32" else "ieee"):
        seconds = _timed(lambda: torch.mm(first, second, out=out), conditions)
    return Rate(
        what=numerics,
        unit="FLOP/s",
        size=f"{side} x {side} x {side}, normally distributed numbers",
        values=tuple(2 * side**3 / one for one in seconds),
    )


@contextmanager
def matrix_precision(precision: Literal["tf32", "ieee"]) -> Iterator[None]:
    """Matrix products of float32 numbers on CUDA in this precision."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def _random_matrix(side: int, numerics: Product, device: torch.device) -> Tensor:
    return torch.randn(side, side, device=device).to(torch.bfloat16 if numerics == "bf16" else torch.float32)


def _timed(run: Callable[[], object], conditions: Conditions) -> tuple[float, ...]:
    for _ in range(WARM_UPS):
        run()
    repetitions = DRY_REPETITIONS if conditions.dry else REPETITIONS
    return tuple(seconds_of_each(lambda number: run(), range(repetitions), conditions.where))


def _held(device: torch.device) -> float | None:
    """Memory of the GPU that is in use; this process has next to none of it yet."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e9


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
