"""This machine, as engines know it: the name of its processor, and where they keep what they make for it."""

import os
import platform
import subprocess
import sys
from pathlib import Path


def processor_name() -> str:
    """As Linux and macOS describe it, elsewhere as Python knows it."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
        return told.strip() or platform.machine()
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
