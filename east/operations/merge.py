"""Finished runs put into a folder of results, each whole or not at all, and nothing written over."""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from east.config import Plan, Run
from east.errors import EastError
from east.files import read_regular
from east.operations.changes import complaint
from east.operations.on_disk import FoundRun, find, read_run
from east.training.folder import METRICS, is_locked
from east.training.records import KEPT_SUMMARY, SUMMARY, RunSummary
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


def merge(plan: Plan, source: Path, results: Path, *, dry_run: bool = False) -> Placed:
    """Take over the finished runs of a plan that another folder of results holds.

    A run is looked for by its id and, where another one lies there, by its fingerprint: another plan may have trained
    the same run under another table. Runs that are not finished there are passed over.

    Args:
        plan: what may be taken.
        source: the other results/<name>; nothing in it is changed, and no link in it is followed.
        results: results/<name> here.
        dry_run: only say what would be taken.

    Raises:
        EastError: `source` is not a folder of results.
    """
    if not (source / "runs").is_dir():
        raise EastError(f"{source} has no folder runs. Give another person's results/{plan.config.name}.")
    there = {run_id: read_run(folder) for run_id, folder in find(source, "runs").items()}
    same = {found.summary.fingerprint: found for found in there.values() if found.summary}
    placed = Placed()
    for run in plan.runs:
        found = there.get(run.id)
        if not (found and found.summary and found.summary.fingerprint == run.fingerprint):
            found = same.get(run.fingerprint, found)
        if found and (found.summary or found.damage):
            _offer(found, run, results, placed, dry_run=dry_run)
    return placed


def is_free(folder: Path) -> bool:
    """Whether nothing lies where a run's folder would go; Snakemake makes empty folders beforehand."""
    return not folder.is_symlink() and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir())))


def move_run(folder: Path, destination: Path) -> None:
    """Move a finished run's folder to where it belongs, on the same file system.

    Raises:
        OSError: the destination is no longer free.
    """
    _copy(folder / SUMMARY, folder / KEPT_SUMMARY)
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(destination)


def _offer(found: FoundRun, run: Run, results: Path, placed: Placed, *, dry_run: bool) -> None:
    destination = results / "runs" / run.id
    reason = complaint(found, run)
    if reason is None and not is_free(destination):
        reason = _disagreement(read_run(destination), found, run)
        if reason is None:
            placed.already.append(run.id)
            return
    if reason is None and not dry_run:
        # What belongs to one process on one machine stays behind: its lock, checkpoints, state and temporary files.
        left_behind = shutil.ignore_patterns(".*", "checkpoint-*", STATE)
        try:
            results.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=results, prefix=INCOMING) as temporary:
                folder = Path(temporary) / "run"
                shutil.copytree(found.folder, folder, ignore=left_behind, copy_function=_copy)
                move_run(folder, destination)
        except OSError as error:
            reason = f"it cannot be copied: {_cause(error)}"
    if reason is None:
        placed.taken.append(run.id)
    else:
        placed.refused[run.id] = reason


def _cause(error: OSError) -> str:
    """What an error says, in words; of several files that were not copied, the first with its path."""
    if not isinstance(error, shutil.Error):
        return str(error.strerror or error)
    path, _, said = error.args[0][0]
    return f"{path}: {said.partition('] ')[2] or said}"  # it begins with the number of the error, in brackets


def _disagreement(here: FoundRun, there: FoundRun, run: Run) -> str | None:
    """What keeps two folders from holding the same finished run with the same numbers; seconds may differ."""
    if is_locked(here.folder):
        return "it is being trained here"
    reason = complaint(here, run)
    if reason or here.summary is None or there.summary is None:
        return f"{here.folder} is in its way ({reason}); remove that to take it"
    if _numbers(here) != _numbers(there):
        return (
            f"it was trained here as well, with other numbers ({_accuracy(here.summary)} here, "
            f"{_accuracy(there.summary)} there); the one here stays"
        )
    return None


def _numbers(found: FoundRun) -> tuple[object, ...]:
    keys = ("status", "final_test_accuracy", "best_test_accuracy", "nonzeros")
    return *(getattr(found.summary, key) for key in keys), read_regular(found.folder / METRICS)


def _accuracy(summary: RunSummary) -> str:
    return summary.status if summary.final_test_accuracy is None else f"{summary.final_test_accuracy:.2f} %"


def _copy(source: str | Path, destination: str | Path) -> None:
    """Copy what a file holds, to the disk. It gets the time of now, so that tables are made again from it."""
    shutil.copyfile(source, destination)
    with Path(destination).open("rb") as stream:
        os.fsync(stream.fileno())
