"""What the checks look at (the plan, folders, environment, packages and machine), and what one finds there."""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from east.checkout import PACKAGE
from east.config import Plan
from east.operations.doctor.ask import Asker

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `note`: good to know; `warning`: the plan runs, but slower or at a risk; `error`: the plan, or a
            part of it, cannot run.
        found: what it is, in a sentence or less.
        why: why it matters; empty where all is well.
        fix: the command that puts it right, or what to do where no command does; empty where there is nothing to do.
    """

    level: Level
    found: str
    why: str = ""
    fix: str = ""


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def free_inodes_of(folder: Path) -> int | None:
    """Files that the file system of a folder can still take; None where it knows no such limit."""
    found = os.statvfs(folder)
    return found.f_favail if found.f_files else None


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at; everything that a test may want otherwise has its place here.

    Attributes:
        plan: what is to run.
        ask: asks other processes.
        results: results/<name>, which need not exist.
        configfiles: the overlays of the plan, for the commands that are suggested.
        thorough: read data in full, for their checksums.
        project: the checkout, None where there is none.
        python: the interpreter, whose folder holds the commands of the workflow.
        python_version: of that interpreter.
        installed: the version of a package, None if it is missing.
        free_bytes: of the file system of a folder.
        free_inodes: files that it can still take; None where it knows no such limit.
        cores: processors that this process may run on.
        root: where /proc and /sys are.
    """

    plan: Plan
    ask: Asker
    results: Path
    configfiles: tuple[Path, ...] = ()
    thorough: bool = False
    project: Path | None = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
    python: Path = Path(sys.executable)
    python_version: str = platform.python_version()
    installed: Callable[[str], str | None] = installed_version
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    free_inodes: Callable[[Path], int | None] = free_inodes_of
    cores: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    root: Path = Path("/")

    @property
    def data(self) -> Path:
        """The folder of data sets."""
        return self.ask.folder / self.plan.config.execution.data_dir

    def folder_of(self, name: str) -> Path | None:
        """The folder of a data set's own files or images, where one is named."""
        configured = self.plan.config.datasets.get(name)
        chosen = configured.folder if configured else None
        if name == "imagenet":
            chosen = chosen or self.ask.environment.get("EAST_IMAGE_FOLDER")
        return self.ask.folder / chosen if chosen else None

    @property
    def has_slurm(self) -> bool:
        """Whether jobs can be handed to Slurm here, so that trainings need not run on this machine."""
        return self.ask.which("sbatch") is not None

    @property
    def has_torch(self) -> bool:
        """Whether PyTorch can be imported."""
        return "problem" not in self.ask.probe("torch")

    @property
    def has_gpu(self) -> bool:
        """Whether trainings would compute on a GPU."""
        return self.plan.config.execution.device != "cpu" and bool(self.ask.probe("torch").get("gpus"))

    def shown(self, path: Path) -> Path:
        """A path as people would write it here."""
        return path.relative_to(self.ask.folder) if path.is_relative_to(self.ask.folder) else path

    def snakemake(self, arguments: str) -> str:
        """A command of Snakemake for this very plan."""
        files = shlex.join(map(str, self.configfiles))
        return f"snakemake {arguments}" + (f" --configfile {files}" if files else "")

    def east(self, arguments: str) -> str:
        """A command of `east` for this very plan."""
        return f"east {arguments}" + "".join(f" --configfile {shlex.quote(str(file))}" for file in self.configfiles)

    def restore_report(self) -> str:
        """The command that brings the files of the report back."""
        if self.project is None:
            return "Run it in a whole checkout of the project."
        return f"git -C {shlex.quote(str(self.project))} checkout -- report"

    def reinstall(self, *, everything: bool) -> str:
        """The command that installs the locked packages.

        Args:
            everything: also those that are there, because a version alone does not tell whether the build is right.
        """
        if self.project is None:
            return "Install the packages of the project's requirements/lock.txt."
        place = "" if self.project == self.ask.folder else f"cd {shlex.quote(str(self.project))} && "
        if self.python.is_relative_to(self.project / ".venv"):
            return f"{place}rm -{'r .venv' if everything else 'f .venv/run.stamp'} && make setup"
        force = " --force-reinstall" if everything else ""
        python = shlex.quote(str(self.python))
        return f"{place}{python} -m pip install{force} --require-hashes -r requirements/lock.txt"


Check = Callable[[Surroundings], Iterable[Finding]]
"""Looks at one matter and yields what it finds there; nothing if the matter does not arise."""


def existing(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return path if path.exists() else existing(path.parent)
