"""What the checks look at: the plan, the folders, the environment, the installed packages and the machine."""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Protocol

import east
from east.config import Plan
from east.operations.doctor.ask import Asker
from east.operations.doctor.finding import Finding


class Usage(Protocol):
    """Bytes of a file system, as `shutil.disk_usage` tells them."""

    @property
    def free(self) -> int:
        """What may still be written."""


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def checkout() -> Path | None:
    """The project's folder that holds this package, None where it was installed without one."""
    folder = Path(east.__file__).parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at; everything that a test may want otherwise has its place here.

    Attributes:
        plan: what is to run.
        ask: asks other processes.
        results: results/<name>, which need not exist.
        configfiles: the overlays of the plan, for the commands that mend.
        thorough: read data in full, for their checksums.
        project: the checkout, None where there is none.
        python: the interpreter, whose folder holds the commands of the workflow.
        python_version: of that interpreter.
        installed: the version of a package, None if it is missing.
        disk_usage: space of the file system of a folder.
        cores: processors that this process may run on.
        root: where /proc and /sys are.
    """

    plan: Plan
    ask: Asker
    results: Path
    configfiles: tuple[Path, ...] = ()
    thorough: bool = False
    project: Path | None = field(default_factory=checkout)
    python: Path = field(default_factory=lambda: Path(sys.executable))
    python_version: str = field(default_factory=platform.python_version)
    installed: Callable[[str], str | None] = installed_version
    disk_usage: Callable[[Path], Usage] = shutil.disk_usage
    cores: int = field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
    )
    root: Path = Path("/")

    @property
    def folder(self) -> Path:
        """Where the workflow runs; relative paths of the configuration start there."""
        return self.ask.folder

    @property
    def data(self) -> Path:
        """The folder of data sets."""
        return self.folder / self.plan.config.execution.data_dir

    @property
    def image_folder(self) -> Path | None:
        """The folder of ImageNet's images."""
        configured = self.plan.config.datasets.get("imagenet")
        chosen = (configured.folder if configured else None) or self.ask.environment.get("EAST_IMAGE_FOLDER")
        return self.folder / chosen if chosen else None

    def shown(self, path: Path) -> Path:
        """A path as people would write it here."""
        return path.relative_to(self.folder) if path.is_relative_to(self.folder) else path

    @property
    def has_slurm(self) -> bool:
        """Whether jobs can be handed to Slurm here, so that trainings need not run on this machine."""
        return self.ask.which("sbatch") is not None

    def snakemake(self, arguments: str) -> str:
        """A command of Snakemake for this very plan."""
        files = "".join(f" {shlex.quote(str(file))}" for file in self.configfiles)
        return f"snakemake {arguments}" + (f" --configfile{files}" if files else "")

    def east(self, arguments: str) -> str:
        """A command of `east` for this very plan."""
        return f"east {arguments}" + "".join(f" --configfile {shlex.quote(str(file))}" for file in self.configfiles)

    def reinstall(self, *, afresh: bool) -> str:
        """The command that installs the locked packages.

        Args:
            afresh: also those that are there, because a version alone does not tell whether the build is right.
        """
        if self.project is None:
            return "Install the packages of the project's requirements/lock.txt."
        place = "" if self.project == self.folder else f"cd {shlex.quote(str(self.project))} && "
        if self.python.is_relative_to(self.project / ".venv"):
            return f"{place}rm -{'r .venv' if afresh else 'f .venv/run.stamp'} && make setup"
        force = " --force-reinstall" if afresh else ""
        python = shlex.quote(str(self.python))
        return f"{place}{python} -m pip install{force} --require-hashes -r requirements/lock.txt"


Check = Callable[[Surroundings], Iterable[Finding]]
"""Looks at one matter and tells what it finds there; nothing if the matter does not arise."""


def existing(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return path if path.exists() else existing(path.parent)
