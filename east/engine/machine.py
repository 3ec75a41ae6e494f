"""This machine, as engines know it: the name of its processor, and where they keep what they make for it."""

import atexit
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from east.trust import distrust_of_folder, make_private

LOG = logging.getLogger(__name__)


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


def own_cache(folder: Path | None, otherwise: str) -> Path | None:
    """The real place of a folder for what is compiled, made for this user alone if it is missing.

    Args:
        folder: the folder, if there is one.
        otherwise: what happens where it is not used because others can write there, for a line that says so.

    Returns:
        None where there is no folder, or it cannot be used, or others can write there.
    """
    if folder is None:
        return None
    try:
        make_private(folder)
        place = folder.resolve(strict=True)
        problem = distrust_of_folder(place)
    except OSError:
        return None
    if problem:
        LOG.warning(
            "nothing that is compiled is kept in %s or taken from it, since %s: %s. Name a folder of your own in the "
            "environment variable EAST_CACHE_DIR.",
            folder,
            problem,
            otherwise,
        )
        return None
    return place


def folder_of_process() -> Path:
    """A new folder for this user alone, which is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="east-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
