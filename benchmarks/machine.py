"""What a system says of cores and memory, on Linux and macOS."""

import os
import resource
import sys

BYTES_OF_PEAK = 1 if sys.platform == "darwin" else 2**10
"""The unit of a process's peak memory."""


def cores() -> int:
    """The cores that this process may use; all of the machine where the system cannot say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_bytes(usage: resource.struct_rusage) -> int:
    """The most memory that a process held at once."""
    return usage.ru_maxrss * BYTES_OF_PEAK
