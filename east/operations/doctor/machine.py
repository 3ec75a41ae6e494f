"""Checks of the machine: the kernels that are compiled for its CPU, cores, memory, and space on its disks."""

import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from east.launch.cores import training_threads
from east.operations.doctor.surroundings import Finding, Surroundings, existing
from east.training.records import SUMMARY

FILES_OF_A_RUN, FILES_OF_A_PLAN = 25, 300
"""Files and folders that are made for a run, and for all the rest; somewhat more than there are."""


def kernels(here: Surroundings) -> Iterator[Finding]:
    """The kernels compile, load, use all threads, and are kept for the next process."""
    if here.plan.config.execution.engine == "dense":
        yield Finding("ok", "no kernels are needed: execution.engine is dense")
        return
    if here.has_gpu:
        yield Finding("ok", "no kernels for the CPU are needed on a GPU")
        return
    facts = here.ask.probe("kernels")
    if not here.has_torch:
        yield Finding("note", "the kernels cannot be looked at until PyTorch can be imported")
    elif "problem" in facts:
        found = f"the kernels cannot be looked at: {facts['problem']}"
        fix = "Set `execution.engine: dense`, and report what ended the process."
        yield Finding("error", found, "A training would end in the same way.", fix)
    elif "refused" in facts:
        refused = str(facts["refused"])  # begins with the variable that asks for it
        yield Finding("error", refused, "Every training would refuse to start.", f"unset {refused.partition(' ')[0]}")
    elif not facts["available"]:
        install = "xcode-select --install" if sys.platform == "darwin" else "apt install g++"
        fix = "unset CXX" if facts["compiler"] is None and "CXX" in here.ask.environment else install
        why = "Every weight is executed, active or not, which is many times slower."
        yield Finding("warning", f"no kernels: {facts['reason']}", why, fix)
    else:
        yield Finding("ok", f"kernels made by {facts['compiler']} for {facts['vector']}")
        if not facts["cached"]:
            where = facts["cache"] or "a cache: there is no home folder"
            fix = 'export EAST_CACHE_DIR="$PWD/.cache"'
            found = f"compiled kernels cannot be kept in {where}"
            yield Finding("warning", found, "Every training compiles them again.", fix)


def cores(here: Surroundings) -> list[Finding]:
    """There are as many cores as a training asks for."""
    found, wanted = usable_cores(here.cores, here.root), _threads(here)
    if found >= wanted:
        return [Finding("ok", f"{found} cores; a training takes {wanted} (execution.threads)")]
    what = f"{found} core{'s' * (found > 1)}, but a training asks for {wanted} (execution.threads)"
    why = "Snakemake gives it those that there are, so it takes longer than it might elsewhere."
    return [Finding("warning", what, why, here.snakemake(f"--cores {found} --config execution='{{threads: {found}}}'"))]


def memory(here: Surroundings) -> Iterator[Finding]:
    """There is as much memory as a training declares, and as those do that run at once."""
    execution = here.plan.config.execution
    found = usable_memory(here.root)
    if found is None:
        return
    megabytes, declared = found >> 20, execution.memory_mb
    at_once = usable_cores(here.cores, here.root) // _threads(here)
    if megabytes < declared:
        what = f"{megabytes:,} MB of memory, but a training declares {declared:,} (execution.memory_mb)"
        fix = "Run the plan on a machine with more, or set execution.memory_mb to what trainings here take."
        yield Finding("warning", what, "The system ends a process that runs out of memory.", fix)
    elif execution.gpus == 0 and at_once * declared > megabytes:
        what = f"{megabytes:,} MB of memory, less than {at_once} trainings at once declare"
        fix = here.snakemake(f"--cores all --resources mem_mb={megabytes}")
        yield Finding("note", what, "With `--cores all` the system may end some of them.", fix)
    else:
        yield Finding("ok", f"{megabytes:,} MB of memory; a training declares {declared:,}")


def space(here: Surroundings) -> Iterator[Finding]:
    """Each file system that the plan writes to holds what the plan will still write."""
    if not here.has_torch:
        yield Finding("note", "what the plan needs on disk cannot be counted until PyTorch can be imported")
        return
    from east.operations.disk import disk_need

    left = [run for run in here.plan.runs if not (here.results / "runs" / run.id / SUMMARY).is_file()]
    disk = disk_need(left, here.data)
    needs = [("results", here.results, sum(disk.runs.values())), ("data", here.data, disk.data)]
    if cache := here.ask.probe("kernels").get("cache"):
        needs.append(("compiled kernels", Path(cache), 50 << 20))  # bytes, generously
    by_device = defaultdict(list)
    for name, path, size in needs:
        by_device[existing(path).stat().st_dev].append((name, existing(path).resolve(), size))
    for parts in by_device.values():
        names, (folder, *_), sizes = zip(*parts, strict=True)
        need, free = sum(sizes), here.free_bytes(folder)
        found = f"{free / 1e9:.1f} GB free for {' and '.join(names)} in {folder}; the plan may need {need / 1e9:.1f} GB"
        where = shlex.quote(str(folder))
        fix = f"du -xh {where} | sort -h | tail   # or move results/ or execution.data_dir to a larger disk"
        if free < need:
            yield Finding("error", found, "The plan would stop when the disk is full.", fix)
        elif free < need * 1.25:
            yield Finding("warning", found, "Little is left for anything else.", fix)
        else:
            yield Finding("ok", found)


def inodes(here: Surroundings) -> Iterator[Finding]:
    """The file system of the results has room for as many files as the plan will write."""
    folder = existing(here.results).resolve()
    free = here.free_inodes(folder)
    left = sum(1 for run in here.plan.runs if not (here.results / "runs" / run.id / SUMMARY).is_file())
    need = FILES_OF_A_RUN * left + FILES_OF_A_PLAN
    if free is not None and free < need:
        found = f"{free:,} more files fit into the file system of {folder}; the plan may need {need:,}"
        fix = f"df -i {shlex.quote(str(folder))}   # then remove files, or move results/ to another disk"
        yield Finding("error", found, "The plan would stop when no file can be made.", fix)


def usable_cores(cores: int, root: Path) -> int:
    """Cores that a process may use, at least 1: those it may be scheduled on, or fewer if a control group says so."""
    shares = [float(cores)]
    for folder in _groups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota, period = quota or _read(folder / "cpu.cfs_quota_us"), period or _read(folder / "cpu.cfs_period_us")
        if quota not in ("", "max") and period and int(quota) > 0:
            shares.append(int(quota) / int(period))
    return max(1, math.floor(min(shares)))


def usable_memory(root: Path) -> int | None:
    """Bytes of memory that a process may use, None where that cannot be known."""
    sizes = [int(line.split()[1]) * 1024 for line in _read(root / "proc/meminfo").splitlines() if "MemTotal" in line]
    for folder in _groups(root, "memory"):
        limits = (_read(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        sizes += [int(limit) for limit in limits if limit not in ("", "max")]
    return min(sizes, default=None)


def _threads(here: Surroundings) -> int:
    execution, cores = here.plan.config.execution, usable_cores(here.cores, here.root)
    return training_threads(execution.threads, runs=len(here.plan.runs), cores=cores, engine=execution.engine)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process belongs to, up to the outermost; version 2 and 1."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controller in controllers.split(","):
            top = mounted if number == "0" else mounted / controller
            folder = top / path.lstrip("/")
            yield from (above for above in (folder, *folder.parents) if above.is_relative_to(top))


def _read(file: Path) -> str:
    """What a file says; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
