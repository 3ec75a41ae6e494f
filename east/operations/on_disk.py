"""What is on disk of the runs of a plan: the one reader of all who compare results with the plan."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from east.config.run import with_defaults
from east.errors import EastError
from east.files import parse_json, read_regular
from east.training.folder import DIGESTED, RUN, epochs_done
from east.training.records import KEPT_SUMMARY, SUMMARY, RunSummary, read_summary

SMALL_FILES = tuple(sorted((SUMMARY, *DIGESTED)))
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


def read_run(folder: Path) -> FoundRun:
    """Read what a run's folder holds; what is not there, or cannot be read, is None."""
    summary, damage = _summary(folder / SUMMARY)
    kept = None if summary else _summary(folder / KEPT_SUMMARY)[0]
    begun = None
    with suppress(OSError, ValueError):
        begun = with_defaults(parse_json(read_regular(folder / RUN)))
    return FoundRun(folder, summary, damage, kept, begun, epochs_done(folder))


def find(results: Path, below: str, ending: str = "") -> dict[str, Path]:
    """What lies at table/row/seed below a folder of the results, by run id: folders, or files with this ending.

    Links in `results` are not followed, and what begins with a dot is passed over.
    """
    return {
        path.relative_to(results / below).as_posix().removesuffix(ending): path
        for path in sorted((results / below).glob(f"*/*/*{ending}"))
        if is_plain(path, results) and (path.is_file() if ending else path.is_dir())
    }


def is_plain(path: Path, results: Path) -> bool:
    """Whether neither a path in the results nor a folder between them is a link or hidden."""
    inside = [path, *path.parents][: len(path.relative_to(results).parts)]
    return not any(part.is_symlink() or part.name.startswith(".") for part in inside)


def _summary(path: Path) -> tuple[RunSummary | None, str | None]:
    """A summary, or why it cannot be read, or neither where there is none."""
    try:
        return (read_summary(path), None) if path.exists() else (None, None)
    except EastError as error:
        return None, str(error)
