"""Finished runs from elsewhere put into a folder of results: each whole or not at all, and nothing written over."""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from east.training.folder import KEPT_SUMMARY, SUMMARY
from east.training.state import STATE

INCOMING = ".incoming-"
"""How the name of a folder begins in which runs wait until they are whole."""


@dataclass
class Placed:
    """What became of runs that were offered, by id.

    Attributes:
        taken: they are here now.
        already: they were here, the same.
        refused: they were left out, and why.
    """

    taken: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def is_free(folder: Path) -> bool:
    """Whether nothing lies where a run's folder would go; Snakemake makes empty folders beforehand."""
    return not folder.is_symlink() and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir())))


def copy_run(source: Path, destination: Path, results: Path) -> None:
    """Copy a finished run's folder to where it belongs in `results`.

    What belongs to one process on one machine stays behind: its lock, checkpoints, state and temporary files.

    Raises:
        OSError: the destination is no longer free, or there is no space.
    """
    with tempfile.TemporaryDirectory(dir=results, prefix=INCOMING) as temporary:
        folder = Path(temporary) / "run"
        left_behind = shutil.ignore_patterns(".*", "checkpoint-*", STATE)
        shutil.copytree(source, folder, ignore=left_behind, copy_function=_copy)
        move_run(folder, destination)


def move_run(folder: Path, destination: Path) -> None:
    """Move a finished run's folder to where it belongs, on the same file system.

    Raises:
        OSError: the destination is no longer free.
    """
    _copy(folder / SUMMARY, folder / KEPT_SUMMARY)
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(destination)


def _copy(source: str | Path, destination: str | Path) -> None:
    """Copy what a file holds, to the disk. It gets the time of now, so that tables are made anew from it."""
    shutil.copyfile(source, destination)
    with Path(destination).open("rb") as stream:
        os.fsync(stream.fileno())
