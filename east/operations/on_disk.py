"""What is on disk of the runs of a plan: the one reader of all who compare results with the plan."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from east.config import Plan
from east.config.run import with_defaults
from east.errors import EastError
from east.training.folder import KEPT_SUMMARY, METRICS, RUN, SUMMARY, TIMING, TRACE, UPDATES, epochs_done
from east.training.records import RunSummary, read_summary

SMALL_FILES = (METRICS, RUN, SUMMARY, TIMING, TRACE, UPDATES)
"""What a finished run leaves besides its weights; each is small."""


@dataclass(frozen=True)
class FoundRun:
    """What a run's folder holds.

    Attributes:
        folder: of the run; it may be missing.
        summary: of the run that ended there, if one did.
        damage: why the summary that is there cannot be read.
        kept: the copy of the summary, which is put back where Snakemake has removed that.
        spec: the run that was begun there last, as its run.json has it, with the options that were left out there.
        epoch: epochs that are done and would not be repeated, where there is a checkpoint.
    """

    folder: Path
    summary: RunSummary | None = None
    damage: str | None = None
    kept: RunSummary | None = None
    spec: dict[str, Any] | None = None
    epoch: int | None = None


def results_folder(plan: Plan, results: Path | None) -> Path:
    """The folder of a plan's results: `results`, or `results/<name>` in the working directory."""
    return results or Path("results") / plan.config.name


def read_run(folder: Path) -> FoundRun:
    """Read what a run's folder holds; what is not there, or cannot be read, is None."""
    summary, damage = _summary(folder / SUMMARY)
    kept = None if summary else _summary(folder / KEPT_SUMMARY)[0]
    return FoundRun(folder, summary, damage, kept, read_spec(folder / RUN), epochs_done(folder))


def read_spec(path: Path) -> dict[str, Any] | None:
    """The run that a run.json describes, see `with_defaults`; None where there is none that can be read."""
    try:
        spec = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return with_defaults(spec) if isinstance(spec, dict) else None


def find(results: Path, below: str, ending: str = "") -> dict[str, Path]:
    """What lies at table/row/seed below a folder of the results, by run id: folders, or files with this ending.

    Links in `results` are not followed, and what begins with a dot is passed over.
    """
    folder = results
    for part in below.split("/"):
        folder /= part
        if folder.is_symlink():
            return {}
    return dict(_find(folder, ending, "", 3))


def _summary(path: Path) -> tuple[RunSummary | None, str | None]:
    """A summary, or why it cannot be read, or neither where there is none."""
    try:
        return (read_summary(path), None) if path.exists() else (None, None)
    except EastError as error:
        return None, str(error)


def _find(folder: Path, ending: str, prefix: str, depth: int) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        name, path = prefix + entry.name, Path(entry.path)
        if depth > 1:
            yield from _find(path, ending, f"{name}/", depth - 1)
        elif not ending and entry.is_dir():
            yield name, path
        elif ending and entry.name.endswith(ending) and entry.is_file():
            yield name.removesuffix(ending), path
