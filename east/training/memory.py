"""How much memory a process has held."""

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30

KIB_PER_MB = 2**10
BYTES_PER_MB = 2**20


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system (glibc only).

    Every step allocates the same activations again; handing their pages back and forth costs up to a tenth of a step.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def forget_peak() -> None:
    """Start the peak of this process afresh, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_memory_mb() -> float:
    """Memory that this process holds now, in MB; its peak where the system does not tell."""
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
