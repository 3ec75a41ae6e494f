"""This machine, as engines know it: the name of its processor, and where they keep what they make for it."""

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """As Linux describes it, elsewhere as Python knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: `EAST_CACHE_DIR`, else `east` in the user's cache; None without a home."""
    if chosen := os.environ.get("EAST_CACHE_DIR"):
        return Path(chosen).absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "east"
    try:
        return Path.home() / ".cache" / "east"
    except RuntimeError:
        return None
