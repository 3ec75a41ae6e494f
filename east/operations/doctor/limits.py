"""Cores and memory that a process may really use: those of the machine, or fewer if a control group says so."""

import math
from collections.abc import Iterator
from pathlib import Path


def usable_cores(cores: int, root: Path) -> int:
    """Cores that a process may use, at least 1.

    Args:
        cores: that it may be scheduled on.
        root: where /proc and /sys are.
    """
    shares = [float(cores)]
    for text in _limits(root, "cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            shares.append(int(quota) / int(period))
    for folder in _groups(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            shares.append(int(quota) / int(period))
    return max(1, math.floor(min(shares)))


def usable_memory(root: Path) -> int | None:
    """Bytes of memory that a process may use, None where that cannot be told.

    Args:
        root: where /proc and /sys are.
    """
    sizes = [int(line.split()[1]) * 1024 for line in _read(root / "proc/meminfo").splitlines() if "MemTotal" in line]
    for name in ("memory.max", "memory.limit_in_bytes"):
        sizes += [int(text) for text in _limits(root, "memory", name) if text != "max"]
    return min(sizes, default=None)


def _limits(root: Path, controller: str, name: str) -> Iterator[str]:
    """What the files of a name say in the control groups of this process, and in those above."""
    return filter(None, (_read(folder / name) for folder in _groups(root, controller)))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process belongs to, up to the outermost; version 2 and 1."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top = mounted
        elif controller in controllers.split(","):
            top = mounted / controller
        else:
            continue
        folder = top / path.lstrip("/")
        yield from (above for above in (folder, *folder.parents) if above.is_relative_to(top))


def _read(file: Path) -> str:
    """What a file says; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
