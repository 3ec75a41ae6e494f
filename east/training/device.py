"""The device that a training computes on, and the memory that a process holds."""

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from east.errors import EastError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30

KIB_PER_MB = 2**10
BYTES_PER_MB = 2**20


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is the GPU where there is one.

    Raises:
        EastError: CUDA is asked for and PyTorch finds none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise EastError("device: cuda was asked for, but PyTorch finds no GPU. Use device: auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system (glibc only).

    Every step allocates the same activations again; handing their pages back and forth costs up to a tenth of a step.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def forget_peak() -> None:
    """Reset the peak of this process, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_memory_mb() -> float:
    """Memory that this process holds now, in MB; its peak where the system does not say."""
    return _process_memory("VmRSS")


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held at once, in MB: on a GPU by PyTorch's tensors, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / BYTES_PER_MB
    return _process_memory("VmHWM")


def _process_memory(key: str) -> float:
    """A line of /proc/self/status in MB: `VmRSS` is the memory now, `VmHWM` its peak.

    `getrusage` serves only where there is no /proc: on Linux a child's peak starts at that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(rf"^{key}:\s+(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found.group(1)) / KIB_PER_MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (BYTES_PER_MB if sys.platform == "darwin" else KIB_PER_MB)
